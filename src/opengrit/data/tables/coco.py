"""COCO's annotations as questions: how many of each kind there are, or where the one of a kind is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from opengrit.core.errors import DataError
from opengrit.data.tables.rows import BoxStyle, RawRow, Table
from opengrit.data.tables.settings import CocoTask

_STYLE = BoxStyle("xywh", "pixels")
_PLURALS = {
    "person": "people",
    "mouse": "mice",
    "knife": "knives",
    "man": "men",
    "woman": "women",
    "child": "children",
}
_BOTH = frozenset({"sheep", "skis", "scissors", "fish", "deer", "broccoli", "aircraft", "series", "species"})


def is_coco(document: Any) -> bool:
    """Whether a JSON document is COCO's: lists of images, annotations and categories."""
    return isinstance(document, dict) and all(
        isinstance(document.get(name), list) for name in ("images", "annotations", "categories")
    )


def coco_rows(file: str, document: dict[str, Any], task: CocoTask) -> Table:
    """The questions. Raises DataError where the lists do not hold what COCO's do."""
    try:
        rows, crowds = _rows(document, task)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "COCO's images have id and file_name, annotations image_id, category_id and bbox, categories id and name; those of "
            f"{file} do not ({error!r}); export it again"
        ) from error
    if not rows:
        wanted = "a picture with exactly one object of a kind" if task == "boxes" else "an annotation"
        raise DataError(
            f"{file} gives questions only about {wanted}, it has none; choose --coco counting, or other annotations"
        )
    numbered = [RawRow(number, row, _STYLE) for number, row in enumerate(rows, start=1)]
    note = (
        f"{crowds} kinds of object are left out of pictures that mark a crowd with one box (iscrowd): nobody counted "
        "them"
    )
    return Table(file, numbered, notes=(note,) if crowds else ())


def _rows(document: dict[str, Any], task: CocoTask) -> tuple[list[dict[str, Any]], int]:
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    found: dict[Any, dict[Any, list[Any]]] = defaultdict(lambda: defaultdict(list))
    crowded = set()
    for note in document["annotations"]:
        found[note["image_id"]][note["category_id"]].append(note["bbox"])
        if note.get("iscrowd"):
            crowded.add((note["image_id"], note["category_id"]))
    rows: list[dict[str, Any]] = []
    for image in document["images"]:
        kinds = {
            names[kind]: boxes
            for kind, boxes in found[image["id"]].items()
            if (image["id"], kind) not in crowded
        }
        sides = {side: image[side] for side in ("width", "height") if image.get(side)}
        rows += ({"image": image["file_name"], **sides, **row} for row in _questions(kinds, task))
    return rows, len(crowded)


def _questions(kinds: dict[str, list[Any]], task: CocoTask) -> Iterator[dict[str, Any]]:
    for name, boxes in sorted(kinds.items()):
        if task == "counting":
            question = f"How many {plural(name)} are there in the picture?"
            yield {"question": question, "answer": len(boxes), "bboxs": boxes, "key_words": name}
        elif len(boxes) == 1:
            yield {"question": f"Where is the {name}?", "answer": boxes[0], "bboxs": boxes, "key_words": name}


def plural(noun: str) -> str:
    """The plural of an English noun as COCO names kinds; the last word of several changes."""
    first, space, last = noun.rpartition(" ")
    word = last.lower()
    if word in _BOTH:
        return noun
    if word in _PLURALS:
        last = _PLURALS[word]
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return first + space + last
