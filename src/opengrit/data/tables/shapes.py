"""Rows of other trainers made flat: conversations of LLaVA and OpenAI, and the objects of ms-swift."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opengrit.data.foreign_rows import PLACEHOLDER
from opengrit.data.tables.rows import BoxStyle, RawRow
from opengrit.data.tables.settings import Units

_TURNS = ("conversations", "messages")
_ASKS = frozenset({"human", "user"})
_ANSWERS = frozenset({"gpt", "assistant", "bot", "model"})
_REFERENCE, _BOX = "<ref-object>", "<bbox>"
_UNITS: dict[str, Units] = {"real": "pixels", "norm1": "unit", "norm1000": "thousand"}


@dataclass(frozen=True, slots=True)
class FlatRows:
    """The rows of a table with every question a row of its own."""

    rows: Iterable[RawRow]

    def __iter__(self) -> Iterator[RawRow]:
        for row in self.rows:
            yield from flat(row)


def flat(row: RawRow) -> Iterator[RawRow]:
    """The questions of one row: each with its answer where it holds a conversation, else the row itself."""
    key = next((name for name in _TURNS if _is_turns(row.values.get(name))), None)
    objects = row.values.get("objects")
    style = row.style
    if isinstance(objects, dict) and (units := _UNITS.get(str(objects.get("bbox_type")))) is not None:
        style = BoxStyle("xyxy", units).over(style)
    if key is None:
        yield RawRow(row.number, row.values, style)
        return
    rest = {name: value for name, value in row.values.items() if name != key}
    references = iter(_list(objects, "ref"))
    boxes = iter(_list(objects, "bbox"))
    pictures: list[Any] = []
    asked: str | None = None
    for turn in row.values[key]:
        said = str(turn.get("from", turn.get("role", ""))).lower()
        text, found = _content(turn.get("value", turn.get("content", "")))
        pictures += found
        text = re.sub(_REFERENCE, lambda _: str(next(references, "thing")), text)
        if said in _ASKS:
            asked = without_placeholders(text)
        elif said in _ANSWERS and asked is not None:
            answer = _answer(text, boxes)
            pictured = {"image": pictures[0] if len(pictures) == 1 else list(pictures)} if pictures else {}
            yield RawRow(row.number, {**rest, **pictured, "question": asked, "answer": answer}, style)
            asked = None


def without_placeholders(question: str) -> str:
    """A question without what stands for its picture in other trainers' prompts."""
    return PLACEHOLDER.sub("", question).strip()


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def _list(objects: Any, key: str) -> list[Any]:
    found = objects.get(key) if isinstance(objects, dict) else None
    return found if isinstance(found, list) else []


def _content(content: Any) -> tuple[str, list[Any]]:
    """The text of a turn and the pictures in it."""
    if not isinstance(content, list):
        return ("" if content is None else str(content)), []
    texts, pictures = [], []
    for part in content:
        if not isinstance(part, dict):
            continue
        if part.get("type") in ("text", "input_text"):
            texts.append(str(part.get("text", "")))
        for key in ("image_url", "image"):
            value = part.get(key)
            if value is not None:
                pictures.append(value.get("url") if isinstance(value, dict) and "url" in value else value)
    return "\n".join(texts), pictures


def _answer(text: str, boxes: Iterator[Any]) -> Any:
    """What was answered: a box where the answer is the sign for one, else the words."""
    if text.strip() == _BOX:
        return next(boxes, text)
    return " ".join(text.replace(_BOX, " ").split()) if _BOX in text else text
