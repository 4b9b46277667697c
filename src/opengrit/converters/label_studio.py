"""Label Studio: a task a record, with the model's boxes as predictions and the annotated ones as an annotation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opengrit.converters.output import JsonList
from opengrit.converters.source import Source, label_of, verdict_of
from opengrit.core.boxes import Box, Size
from opengrit.core.escaping import without_surrogates
from opengrit.core.types import Record

TASKS = "tasks.json"
CONFIG = "labeling_config.xml"
ROOT = "local_files_root.txt"
_FROM, _TO = "label", "image"  # the names of the two tags in the labelling configuration
_MODEL = "opengrit"

_CONFIG_XML = """<View>
  <Header value="$question"/>
  <Text name="facts" value="$facts"/>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="label" toName="image">
{labels}
  </RectangleLabels>
</View>
"""


def write_label_studio(source: Source, folder: Path) -> int:
    """Tasks to import, the labelling configuration, and the folder to serve pictures from; the number of tasks.

    Pictures are named by Label Studio's own route for local files, below the one folder that holds them all: its path
    is in local_files_root.txt, to be given as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT. Failed rollouts are left out.
    """
    folder.mkdir()
    root = _common_root(record.example.image for record in source.records() if record.failure is None)
    labels: dict[str, None] = {}
    count = 0
    with JsonList(folder / TASKS) as tasks:
        for record in source.records():
            if record.failure is not None:
                continue
            tasks.write(json.dumps(_task(record, root)))
            labels |= dict.fromkeys(_labels(record))
            count += 1
    lines = "\n".join(f'    <Label value="{_attribute(label)}"/>' for label in labels or {"box": None})
    (folder / CONFIG).write_text(_CONFIG_XML.replace("{labels}", lines), encoding="utf-8")
    (folder / ROOT).write_text(root + "\n", encoding="utf-8")
    return count


def _common_root(paths: Iterable[str]) -> str:
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
    return os.path.commonpath(folders) if folders else ""


def _labels(record: Record) -> list[str]:
    written = [without_surrogates(label_of(pointing.label)) for pointing in record.transcript.pointings]
    return [*written, *(["box"] if record.example.boxes else [])]


def _task(record: Record, root: str) -> dict[str, Any]:
    example, transcript = record.example, record.transcript
    size = example.picture_size
    path = os.path.relpath(os.path.abspath(example.image), root)
    answer = transcript.answer if transcript.answer is not None else "(none)"
    data = {
        "image": f"/data/local-files/?d={quote(path)}",
        "question": example.question,
        "facts": f"expected: {example.answer}; answered: {answer} ({verdict_of(record)})",
        "record": record.id,
        "text": record.completion.text,
    }
    boxes = [
        _result(pointing.box, size, without_surrogates(label_of(pointing.label)), f"p{number}")
        for number, pointing in enumerate(transcript.pointings, start=1)
    ]
    truths = [_result(box, size, "box", f"a{number}") for number, box in enumerate(example.boxes, start=1)]
    task: dict[str, Any] = {
        "data": {name: without_surrogates(value) for name, value in data.items()},
        "predictions": [{"model_version": _MODEL, "result": boxes}],
    }
    if example.boxes_known:
        task["annotations"] = [{"result": truths, "ground_truth": True}]
    return task


def _result(box: Box, size: Size, label: str, id: str) -> dict[str, Any]:
    """A rectangle in Label Studio's unit: per cent of the picture's width and height."""
    return {
        "id": id,
        "type": "rectanglelabels",
        "from_name": _FROM,
        "to_name": _TO,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": {
            "x": 100 * box.left,
            "y": 100 * box.top,
            "width": 100 * (box.right - box.left),
            "height": 100 * (box.bottom - box.top),
            "rotation": 0,
            "rectanglelabels": [label],
        },
    }


def _attribute(text: str) -> str:
    """The text inside an attribute of XML; what XML cannot hold is the replacement sign."""
    held = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return held.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
