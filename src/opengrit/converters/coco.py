"""COCO: the annotated boxes as a ground truth and the model's as results, for pycocotools and what reads its files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from opengrit.converters.output import JsonList
from opengrit.converters.source import Source, label_of
from opengrit.core.boxes import Box, Size
from opengrit.core.types import Record

ANNOTATIONS = "annotations.json"
RESULTS = "results.json"
PICTURES = "images"
_CATEGORY = (
    1  # annotated boxes have no names: all are of one kind, and what the model called its own is `label`
)


def write_coco(source: Source, folder: Path) -> int:
    """Both files in a new folder; the number of records in them.

    An "image" is a record, since two questions about one picture ask for different boxes; readers want each image to have
    a name of its own and to lie in one folder, so each picture that is found is linked (or copied, from another disk) into
    images/ under its number. A language model gives its
    boxes no confidence: each has the score 1.0, so that precision is that of a set and not of a ranking. Boxes that a
    record writes twice are one. Left out are rows that say nothing about boxes, and failed rollouts.
    """
    (folder / PICTURES).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    with JsonList(folder / RESULTS) as results, JsonList(folder / "annotations.part") as annotations:
        count = 0
        for record in source.records():
            if record.failure is not None or not record.example.boxes_known:
                continue
            images.append(_image(record, number=len(images) + 1))
            _place(Path(record.example.image), folder / PICTURES / images[-1]["file_name"])
            size = record.example.picture_size
            for box in dict.fromkeys(record.example.boxes):
                count += 1
                annotations.write(json.dumps(_annotation(box, size, number=count, image=len(images))))
            written = {pointing.box: label_of(pointing.label) for pointing in record.transcript.pointings}
            for box, label in written.items():
                found = {"image_id": len(images), "category_id": _CATEGORY, "bbox": _xywh(box, size)}
                results.write(json.dumps(found | {"score": 1.0, "label": label}))
    _join(folder, images)
    return len(images)


def _place(picture: Path, place: Path) -> None:
    """The picture at another place too, if it is there; a hard link, since readers refuse symbolic ones that lead outside."""
    if not picture.is_file():
        return
    try:
        os.link(picture, place)
    except OSError:  # another disk, or one without links
        shutil.copyfile(picture, place)


def _join(folder: Path, images: list[dict[str, Any]]) -> None:
    """The ground truth's file from its parts: images are known only when all records have been read."""
    part = folder / "annotations.part"
    head = {
        "info": {"description": "opengrit records: an image is a record"},
        "categories": [{"id": _CATEGORY, "name": "box", "supercategory": "box"}],
    }
    with (folder / ANNOTATIONS).open("w", encoding="utf-8") as stream, part.open(encoding="utf-8") as lines:
        stream.write(json.dumps(head)[:-1] + ', "images": ')
        json.dump(images, stream)
        stream.write(', "annotations": ')
        stream.writelines(lines)
        stream.write("}\n")
    part.unlink()


def _image(record: Record, *, number: int) -> dict[str, Any]:
    example = record.example
    return {
        "id": number,
        "file_name": f"{number:06d}{Path(example.image).suffix.lower()}",
        "width": example.picture_size.width,
        "height": example.picture_size.height,
        "path": example.image,
        "record": record.id,
        "question": example.question,
    }


def _annotation(box: Box, size: Size, *, number: int, image: int) -> dict[str, Any]:
    corners = _xywh(box, size)
    return {
        "id": number,
        "image_id": image,
        "category_id": _CATEGORY,
        "bbox": corners,
        "area": corners[2] * corners[3],
        "iscrowd": 0,
    }


def _xywh(box: Box, size: Size) -> list[float]:
    """COCO's box: left, top, width and height in pixels."""
    left, top, right, bottom = box.to_pixels(size)
    return [left, top, right - left, bottom - top]
