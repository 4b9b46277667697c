"""Sampled rollouts as a tracker shows them: a row of words and numbers, and the picture with its boxes drawn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.drawing import NumberedBox, draw_boxes
from opengrit.core.errors import ImageError
from opengrit.core.escaping import without_surrogates
from opengrit.core.images import open_picture
from opengrit.core.types import Record, Unjudged

log = logging.getLogger(__name__)
MOST_ROLLOUTS = 8  # of a step: what fits on a screen
MOST_PIXELS = 1024  # of a picture's longer side; a table of photographs is a few megabytes then

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class ShownRollout:
    """A rollout of a table: its cells by column, the same columns in each row of a table, and its drawing."""

    cells: dict[str, Cell]
    picture: Image.Image


def shown_rollouts(records: Sequence[Record], *, most: int = MOST_ROLLOUTS) -> list[ShownRollout]:
    """Rollouts of one step for a table, at most `most`, evenly spaced over the records; failed ones are left out.

    The boxes are those that the model wrote, numbered and coloured in order of writing, on the picture, whose
    longer side has 480 (see `draw_boxes`) to 1024 pixels.
    """
    measured = [record for record in records if record.failure is None]
    count = min(most, len(measured))
    chosen = [measured[place * len(measured) // count] for place in range(count)]
    parts = list(dict.fromkeys(name for record in chosen for name in record.score.parts))
    found = []
    for record in chosen:
        try:
            found.append(ShownRollout(_cells(record, parts), drawn(record)))
        except ImageError as error:  # gone since it was asked about
            log.warning("a rollout is missing from the trackers' table: %s", error)
    return found


def drawn(record: Record) -> Image.Image:
    """The picture that was asked about with the boxes that the model wrote. Raises ImageError where it is gone."""
    picture = open_picture(record.example.image)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    size = Size(*picture.size)
    boxes = [
        NumberedBox(number, pointing.box.to_pixels(size), pointing.label)
        for number, pointing in enumerate(record.transcript.pointings, start=1)
    ]
    return draw_boxes(picture, boxes)


def _cells(record: Record, parts: Sequence[str]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        "id": record.id,
        "question": record.example.question,
        "expected": record.example.answer,
        "answer": record.transcript.answer,
        "verdict": _verdict(record),
        "reward": record.score.total,
        **{f"parts/{part}": record.score.parts.get(part) for part in parts},
        "advantage": record.advantage,
        "boxes": len(record.transcript.pointings),
        "text": record.completion.text,
    }
    return {
        name: without_surrogates(value) if isinstance(value, str) else value for name, value in cells.items()
    }


def _verdict(record: Record) -> str:
    if isinstance(record.verdict, Unjudged):
        return f"unjudged: {record.verdict.reason}"
    return "right" if record.verdict.correct else "wrong"
