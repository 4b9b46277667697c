"""FiftyOne: a sample a record, with the model's boxes and the annotated ones as detections."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opengrit.converters.output import JsonList
from opengrit.converters.rows import flat
from opengrit.converters.source import Source, label_of
from opengrit.core.boxes import Box
from opengrit.core.escaping import without_surrogates
from opengrit.core.types import Record

METADATA = "metadata.json"
SAMPLES = "samples.json"
# Of the record's flat row; "id", "filepath", "tags" and "metadata" are names of FiftyOne's own.
_FIELDS: tuple[str, ...] = (
    "dataset",
    "example",
    "step",
    "sample",
    "question",
    "expected",
    "answer",
    "verdict",
    "judge_score",
)
_FIELDS += ("reward", "grounding_iou", "text", "failure")


def write_fiftyone(source: Source, folder: Path) -> int:
    """A folder for `fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.LegacyFiftyOneDataset)`; its samples.

    That is FiftyOne's exchange format as JSON that does not depend on its database's version. Pictures stay where they
    are. Boxes are [left, top, width, height] as shares of the picture; the model's are the field `predicted`, without a
    confidence, and the annotated ones `annotated`. The verdict is a tag too.
    """
    folder.mkdir()
    info = {"media_type": "image", "info": {"written_by": "opengrit records"}}
    (folder / METADATA).write_text(json.dumps(info) + "\n", encoding="utf-8")
    count = 0
    with JsonList(folder / SAMPLES, name="samples") as samples:
        for record in source.records():
            samples.write(json.dumps(_sample(record), allow_nan=False))
            count += 1
    return count


def _sample(record: Record) -> dict[str, Any]:
    row = flat(record)
    pointings = record.transcript.pointings
    fields = {name: without_surrogates(v) if isinstance(v := row[name], str) else v for name in _FIELDS}
    return {
        "filepath": record.example.image,
        "tags": [row["verdict"]],
        "metadata": None,
        "record": record.id,
        **fields,
        "predicted": _detections((p.box, without_surrogates(label_of(p.label))) for p in pointings),
        "annotated": _detections((box, "box") for box in record.example.boxes),
    }


def _detections(boxes: Iterable[tuple[Box, str]]) -> dict[str, Any]:
    return {
        "_cls": "Detections",
        "detections": [
            {
                "_cls": "Detection",
                "label": label,
                "bounding_box": [box.left, box.top, box.right - box.left, box.bottom - box.top],
            }
            for box, label in boxes
        ],
    }
