"""Rows written for other trainers: which of their keys holds which of our fields, and how to take it over.

`FOREIGN` is the one list of such keys; a command that imports them begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opengrit.core.escaping import shortened


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key of another trainer. `how` says what of its value becomes which field; "" where it is the key alone."""

    key: str
    fields: tuple[str, ...]
    how: str = ""

    def __str__(self) -> str:
        return self.how or f'rename "{self.key}" to "{self.fields[0]}"'


_ONE_PICTURE = 'write the file name in "{key}" as "image" (one picture a row)'
_LAST_BOXES = 'write the boxes in "{key}" as "bboxs": [[left, top, right, bottom], ...] in pixels'

FOREIGN: tuple[ForeignKey, ...] = (
    ForeignKey(
        "conversations",
        ("question", "answer"),
        'from "conversations" write the human turn\'s "value" without <image> as "question" and the gpt turn\'s as "answer"',
    ),
    ForeignKey(
        "messages",
        ("question", "answer"),
        'from "messages" write the user\'s text without <image> as "question" and the assistant\'s as "answer"',
    ),
    *(ForeignKey(key, ("question",)) for key in ("problem", "query", "prompt", "instruction", "input", "text", "user")),
    *(
        ForeignKey(key, ("answer",))
        for key in (
            "solution", "response", "ground_truth", "groundtruth", "gt", "label", "output", "target", "answers", "gold",
            "reference", "normal_caption",
        )
    ),
    *(
        ForeignKey(key, ("image",), _ONE_PICTURE.format(key=key))
        for key in ("images", "image_path", "image_paths", "image_file", "img_path", "image_url", "file_name", "filename", "img", "picture", "image_id")
    ),
    ForeignKey("objects", ("bboxs",), 'write the boxes in "objects" (its "bbox") as "bboxs": [[left, top, right, bottom], ...] in pixels'),
    *(
        ForeignKey(key, ("bboxs",), _LAST_BOXES.format(key=key))
        for key in ("bbox", "bboxes", "boxes", "bbox_2d", "gt_bbox", "annotations")
    ),
)  # fmt: skip


def mapping(row: Mapping[str, Any], *, required: tuple[str, ...]) -> tuple[ForeignKey, ...]:
    """The other trainers' keys of a row that hold what it lacks; empty where a required field is nowhere in it."""
    known = {key.key: key for key in FOREIGN}
    found = [known[name.lower()] for name in row if name.lower() in known]
    used: list[ForeignKey] = []
    for field in (*required, "bboxs"):
        if field in row or any(field in key.fields for key in used):
            continue
        key = next((key for key in FOREIGN if key in found and field in key.fields), None)
        if key is not None:
            used.append(key)
        elif field in required:
            return ()
    return tuple(used)


def advice(row: Mapping[str, Any], *, required: tuple[str, ...]) -> str:
    """How to write a row of another trainer as ours, key by key; "" where it is no such row."""
    used = mapping(row, required=required)
    if not used:
        return ""
    names = ", ".join(key.key for key in used)
    steps = ", ".join(map(str, used))
    return (
        f"a row has {', '.join(required)}, this row has the keys of another trainer ({shortened(names)}); convert the "
        f"file with opengrit data import, or {steps}; remove <answer> tags and \\boxed{{}} from the answer"
    )


def boxes_in(name: str) -> str:
    """How to take over the boxes that another trainer's key holds; "" where it holds none."""
    return next((str(key) for key in FOREIGN if key.key == name.lower() and "bboxs" in key.fields), "")


# What stands for a picture in other trainers' questions and in models' own prompts.
PLACEHOLDER = re.compile(
    r"<\|?(image|img|image_pad|video|video_pad|vision_start|vision_end|vision_pad|image_placeholder|ImageHere|IMG_CONTEXT"
    r"|image_\d+|im_start|im_end)\|?>|</img>|\[IMG\]",
    re.IGNORECASE,
)
# What is around the answer in a reply.
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)|^\s*\\boxed\{(.*)\}\s*$", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</answer>|</?(?:think|rethink|thinking)>|<\|im_(?:start|end)\|>", re.IGNORECASE)


def unwrapped(answer: str) -> str | None:
    """The bare answer in another trainer's reply, "" where only tags are found; None where nothing is around it."""
    wrapped = _ANSWER.search(answer) or _TAG.search(answer)
    return None if wrapped is None else next((part for part in wrapped.groups() if part), "").strip()
