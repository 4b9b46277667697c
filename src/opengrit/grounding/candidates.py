"""What the scan of a text keeps while it reads: candidates for boxes, their labels, open brackets, runs of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from opengrit.core.types import Rejection
from opengrit.grounding.corners import corner_point

# The lower number wins where one object gives two names for one thing.
_LABEL_KEYS = {
    "label": 0, "labels": 0, "name_en": 1, "en": 1, "names": 1, "object": 2, "name": 3, "object_name": 3,
    "category": 4, "class": 4, "class_name": 4, "phrase": 5, "name_zh": 6, "zh": 6,
    "\u6807\u7b7e": 0, "\u540d\u79f0": 3, "\u7c7b\u522b": 4,
}  # fmt: skip


_DESCRIBING_KEYS = frozenset(
    {"text", "text_content", "description", "caption", "ocr", "transcription", "title"}
)
# Parts of keys that say what their numbers are, and name no thing in the picture.
_TECHNICAL = frozenset({
    "coord", "coords", "coordinate", "coordinates", "pos", "position", "positions", "loc", "location", "locations",
    "rect", "rectangle", "region", "regions", "area", "bounds", "bounding", "xyxy", "corner", "corners", "frame",
    "roi", "result", "results", "answer", "output", "object", "objects", "detection", "detections", "item", "items",
    "data", "value", "values", "thought", "image", "picture", "size", "shape", "\u8fb9\u754c\u6846", "\u5750\u6807",
})  # fmt: skip
_BOX_WORDS = frozenset({
    "box", "boxes", "bbox", "bboxes", "bounding", "boundingbox", "boundingboxes", "bndbox", "box2d", "bbox2d", "2d", "coord", "coords",
    "coordinates", "xyxy", "list", "pred", "predicted", "norm", "normalized",
    "pixel", "pixels", "px", "absolute", "relative", "in", "of", "the", "gt", "target", "object", "final", "answer", "data",
})  # fmt: skip
_WORDS = re.compile(r"[^\W_]++")


class Cue(Enum):
    """What the text around numbers says that they are."""

    BOX = "box"
    POINT = "point"
    NONE = "none"


@dataclass(slots=True)
class Candidate:
    """Numbers in the form of a box, before a frame has judged them, or with the `reason` why they are none.

    `start` and `end` are character offsets in the text, brackets included. `unit` is "px", "%" or, mostly, not
    written; `key_name` is the key of the object that holds nothing but the numbers, for a box without a label.
    """

    numbers: tuple[float, ...]
    start: int
    end: int
    label: str | None = None
    reason: Rejection | None = None
    unit: str = ""
    key_name: str | None = None


@dataclass(slots=True)
class Label:
    text: str
    priority: int


@dataclass(slots=True)
class Key:
    name: str
    quoted: bool

    @property
    def cue(self) -> Cue:
        name = self.name.lower()
        if corner_point(name) is not None:
            return Cue.NONE
        if self.quoted and ("point" in name or "polygon" in name):
            return Cue.POINT
        return Cue.BOX if "box" in name else Cue.NONE

    @property
    def label_priority(self) -> int | None:
        return _LABEL_KEYS.get(self.name.lower())

    @property
    def describes(self) -> bool:
        """Whether its value is a text about the box beside it, which may show numbers that are no box."""
        return self.name.lower() in _DESCRIBING_KEYS

    @property
    def as_label(self) -> str | None:
        """The thing it names where its value is a box, as in {"dog": [10, 20, 30, 40]}; None for a technical name."""
        words = {word for word in _WORDS.findall(self.name.lower()) if not word.isdigit()}
        technical = (
            words <= _BOX_WORDS if self.cue is Cue.BOX else bool(words & _TECHNICAL) or self.cue is Cue.POINT
        )
        if (
            not self.quoted
            or technical
            or self.label_priority is not None
            or corner_point(self.name) is not None
        ):
            return None
        return self.name.strip() or None

    @property
    def holds_box(self) -> bool:
        """Whether a box is expected as its value, or a corner of one."""
        return self.cue is Cue.BOX or corner_point(self.name) is not None


@dataclass(slots=True)
class Bracket:
    """An open bracket. It is `bare` while it holds nothing but numbers, commas and strings."""

    opener: str
    start: int
    cue: Cue = Cue.NONE
    key: Key | None = None
    label: str | None = None
    key_name: str | None = None
    bare: bool = True
    numbers: list[float] = field(default_factory=list)
    numbers_end: int = 0
    unit: str = ""
    quoted: bool = False  # whether the last number was in quotes
    found: bool = False  # whether a box or a rejection came from what it holds
    loose: int = 0  # numbers in it that belong to no list
    sides: set[str] = field(default_factory=set)  # of a box by its place and size: x, y, w, h
    kept: Candidate | None = None  # from the list that something else interrupted
    owner: Bracket | None = None  # the innermost { ... } around it, itself included
    entries: list[Candidate | Label] = field(default_factory=list)

    def take(self, number: float, unit: str, end: int, *, quoted: bool = False) -> None:
        """Add a number to the list that it holds."""
        self.numbers.append(number)
        self.numbers_end, self.quoted = end, quoted
        self.unit = both_units(self.unit, unit)


@dataclass(slots=True)
class Run:
    """Numbers outside a number list: bare in prose, or two-number groups in a row."""

    cue: Cue = Cue.NONE
    numbers: list[float] = field(default_factory=list)
    start: int = 0
    end: int = 0
    unit: str = ""
    label: str | None = None
    key_name: str | None = None
    owner: Bracket | None = None


def both_units(one: str, other: str) -> str:
    """The unit of numbers of which some have one unit and some another: a per cent makes all of them that."""
    return "%" if "%" in (one, other) else one or other


def share_labels(entries: Sequence[Candidate | Label]) -> None:
    """Name each box by the label before it where the object starts with a label, else by the one after it."""
    label: str | None = None
    for entry in entries if entries and isinstance(entries[0], Label) else reversed(entries):
        if isinstance(entry, Label):
            label = entry.text
        elif entry.label is None:
            entry.label = label or entry.key_name
