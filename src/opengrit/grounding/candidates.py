"""What the scan of a text keeps while it reads: candidates for boxes, their labels, open brackets, runs of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from opengrit.core.types import Rejection

# The lower number wins where one object gives two names for one thing.
_LABEL_KEYS = {
    "label": 0, "labels": 0, "name_en": 1, "en": 1, "names": 1, "object": 2, "name": 3, "object_name": 3,
    "category": 4, "class": 4, "class_name": 4, "phrase": 5, "name_zh": 6, "zh": 6,
}  # fmt: skip


class Cue(Enum):
    """What the text around numbers says that they are."""

    BOX = "box"
    POINT = "point"
    NONE = "none"


@dataclass(slots=True)
class Candidate:
    """Numbers in the form of a box, before a frame has judged them, or with the `reason` why they are none.

    `start` and `end` are character offsets in the text, brackets included.
    """

    numbers: tuple[float, ...]
    start: int
    end: int
    label: str | None = None
    reason: Rejection | None = None


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
        if self.quoted and ("point" in name or "polygon" in name):
            return Cue.POINT
        return Cue.BOX if "box" in name else Cue.NONE

    @property
    def label_priority(self) -> int | None:
        return _LABEL_KEYS.get(self.name.lower())


@dataclass(slots=True)
class Bracket:
    """An open bracket. It is `bare` while it holds nothing but numbers, commas and strings."""

    opener: str
    start: int
    cue: Cue = Cue.NONE
    key: Key | None = None
    label: str | None = None
    bare: bool = True
    numbers: list[float] = field(default_factory=list)
    numbers_end: int = 0
    owner: Bracket | None = None  # the innermost { ... } around it, itself included
    entries: list[Candidate | Label] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """Numbers outside a number list: bare in prose, or two-number groups in a row."""

    cue: Cue = Cue.NONE
    numbers: list[float] = field(default_factory=list)
    start: int = 0
    end: int = 0
    label: str | None = None
    owner: Bracket | None = None


def share_labels(entries: Sequence[Candidate | Label]) -> None:
    """Name each box by the label before it where the object starts with a label, else by the one after it."""
    label: str | None = None
    for entry in entries if entries and isinstance(entries[0], Label) else reversed(entries):
        if isinstance(entry, Label):
            label = entry.text
        elif entry.label is None:
            entry.label = label
