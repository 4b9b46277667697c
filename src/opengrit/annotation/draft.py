"""What a person has entered, as a row of GRIT's: read from a request's body, checked as `opengrit data check` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Size
from opengrit.core.types import Example
from opengrit.data.problems import Problem
from opengrit.data.rows import Row
from opengrit.serving.security import bad_parameter

MAX_QUESTION, MAX_ANSWER = 2_000, 500  # characters
MAX_BOXES = 200

PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """A question about the picture of that number; boxes are left, top, right, bottom in the upright picture's pixels."""

    picture: int
    question: str
    answer: str
    boxes: tuple[PixelBox, ...]

    @classmethod
    def read(cls, value: Any) -> Draft:
        """The draft in a JSON value. Raises Refused."""
        if not isinstance(value, dict):
            raise bad_parameter(
                "body", "is a JSON object with picture, question, answer and boxes; reload the page"
            )
        picture = value.get("picture")
        if not isinstance(picture, int) or isinstance(picture, bool):
            raise bad_parameter("picture", f"is a picture's number, got {picture!r:.40}; reload the page")
        question = _text(value, "question", MAX_QUESTION)
        return cls(picture, question, _text(value, "answer", MAX_ANSWER), _boxes(value.get("boxes", [])))


def _text(value: Mapping[str, Any], name: str, most: int) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text.strip():
        raise bad_parameter(name, f"has at least one character; write the {name}")
    if len(text) > most:
        raise bad_parameter(name, f"has at most {most} characters, this one has {len(text)}; shorten it")
    return " ".join(text.split())


def _boxes(value: Any) -> tuple[PixelBox, ...]:
    if not isinstance(value, list) or len(value) > MAX_BOXES:
        raise bad_parameter("boxes", f"is a list of at most {MAX_BOXES} boxes; remove some")
    return tuple(_box(number, box) for number, box in enumerate(value, start=1))


def _box(number: int, box: Any) -> PixelBox:
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(edge, int) and not isinstance(edge, bool) for edge in box)
    ):
        raise bad_parameter(
            "boxes", f"are left, top, right, bottom in whole pixels, box {number} is not; draw it again"
        )
    left, top, right, bottom = box
    return left, top, right, bottom


def row_of(
    draft: Draft, *, image: str, size: Size, dataset: str, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The row of a draft; what the row said `before` and the page does not ask for stays. Raises Refused for a bad box.

    Without a box there is no `bboxs`, since nobody looked for any, unless the answer is that there is nothing.
    """
    for number, (left, top, right, bottom) in enumerate(draft.boxes, start=1):
        if not (0 <= left < right <= size.width and 0 <= top < bottom <= size.height):
            raise bad_parameter(
                "boxes",
                f"lie in the picture of {size.width} x {size.height} pixels, box {number} is "
                f"{list(draft.boxes[number - 1])}; draw it again",
            )
    is_count = draft.answer.isascii() and draft.answer.isdigit() and str(int(draft.answer)) == draft.answer
    row: dict[str, Any] = {
        "question": draft.question,
        "answer": int(draft.answer) if is_count else draft.answer,
        "image": image,
        "width": size.width,
        "height": size.height,
        "dataset": dataset,
    }
    row = (
        dict(before or {}) | row | ({"dataset": before["dataset"]} if before and "dataset" in before else {})
    )
    row.pop("bboxs", None)
    if draft.boxes or row["answer"] == 0:
        row["bboxs"] = [list(box) for box in draft.boxes]
    return row


def examined(row: bytes, *, file: Path, line: int, folder: Path) -> tuple[Example | None, list[Problem]]:
    """The example that a row is and everything that is wrong with it; None where it cannot be used."""
    reading = Row(file=str(file), line=line, root=folder, dataset=file.stem)
    return reading.example(row), reading.problems


def require_usable(row: Mapping[str, Any], *, file: Path, folder: Path) -> None:
    """Nothing; raises Refused where `opengrit data check` would find something wrong with the row."""
    _, problems = examined(
        json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"), file=file, line=1, folder=folder
    )
    if problems:
        name = problems[0].field
        raise bad_parameter("boxes" if name == "bboxs" else name, problems[0].message)
