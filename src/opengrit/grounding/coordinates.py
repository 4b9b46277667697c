"""Finds numbers in the form of a box in a text, and the tags around them, before any frame judges them.

One pass over the tokens, with a bounded amount of work a token (amortised over a stack of open brackets):
the time is linear in the length of the text, and no text makes it raise.

What counts as a box is a matter of form:

* four numbers alone in brackets of any kind: `(x1, y1, x2, y2)`, `[..]`, `{..}`, also nested, also after
  `"bbox_2d":`, also separated by spaces, also with a string beside them;
* two points: `(x1,y1),(x2,y2)`, exactly two in a row; `[[x1,y1],[x2,y2]]` only under a box key or box token;
* four named corners: `"x1": 10, "y1": 20, "x2": 30, "y2": 40`, `xmin=..`, `left: ..`;
* four bare numbers only where the text says so: inside `<box>` and its kin, as the string value of a box key
  (`data-bbox="310 94 658 132"`), or right after `:` or `=` with a box word shortly before on the same line.

Years, list numbers and "1, 2, 3, 4" in prose are not boxes, and a run of five or more numbers is never cut
into fours: it is rejected where its form says that a box was meant, and skipped elsewhere. No JSON parser is
involved: broken JSON, repeated keys and single quotes need no special care.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from opengrit.core.types import Finish, FoundTag, Rejection, Tag
from opengrit.grounding.tokens import MAX_LABEL, TOKEN

MAX_DIGITS = 40  # more do not change a coordinate, and Python limits how long a digit string it converts
CUE_REACH = 60  # characters before a bare run of numbers in which a box word is looked for

_FOUR_NUMBERS = re.compile(r"\s*+([-+]?[0-9.]++)" + r"[\s,]++([-+]?[0-9.]++)" * 3 + r"\s*+")
# "box" alone is no cue: "Counting each box: 1, 2, 3, 4".
_BOX_WORD = re.compile(r"bbox|bounding[ _-]?box(?!es)|coord|x_?min|x1", re.IGNORECASE)
_LITERALS = frozenset({"true", "false", "null", "none"})
_PHRASE = re.compile(r"[^\n,.:;!?\[\](){}<>\"'`*]*\w\Z")

_OPENER = {"]": "[", ")": "(", "}": "{"}
_CORNER = {
    name: slot
    for slot, names in enumerate(
        ("x1 xmin x_min left", "y1 ymin y_min top", "x2 xmax x_max right", "y2 ymax y_max bottom")
    )
    for name in names.split()
}
# The lower number wins where one object gives two names for one thing.
_LABEL_KEYS = {
    "label": 0, "labels": 0, "name_en": 1, "en": 1, "names": 1, "object": 2, "name": 3, "object_name": 3,
    "category": 4, "class": 4, "class_name": 4, "phrase": 5, "name_zh": 6, "zh": 6,
}  # fmt: skip


class _Cue(Enum):
    """What the surroundings say that numbers are."""

    BOX = "box"
    POINT = "point"
    NONE = "none"


@dataclass(slots=True)
class Found:
    """Numbers in the form of a box, before a frame has judged them, or with the `reason` why they are none.

    `start` and `end` are character offsets in the text, brackets included.
    """

    numbers: tuple[float, ...]
    start: int
    end: int
    label: str | None = None
    reason: Rejection | None = None


@dataclass(slots=True)
class _Label:
    text: str
    priority: int


@dataclass(slots=True)
class _Key:
    name: str
    quoted: bool

    @property
    def cue(self) -> _Cue:
        name = self.name.lower()
        if self.quoted and ("point" in name or "polygon" in name):
            return _Cue.POINT
        return _Cue.BOX if "box" in name else _Cue.NONE

    @property
    def label_priority(self) -> int | None:
        return _LABEL_KEYS.get(self.name.lower())


@dataclass(slots=True)
class _Group:
    """An open bracket. It is `bare` while it holds nothing but numbers, commas and strings."""

    opener: str
    start: int
    cue: _Cue = _Cue.NONE
    key: _Key | None = None
    label: str | None = None
    bare: bool = True
    numbers: list[float] = field(default_factory=list)
    numbers_end: int = 0
    owner: _Group | None = None  # the innermost { ... } around it, itself included
    entries: list[Found | _Label] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    """Numbers outside a number list: bare in prose, or two-number groups in a row."""

    cue: _Cue = _Cue.NONE
    numbers: list[float] = field(default_factory=list)
    start: int = 0
    end: int = 0
    label: str | None = None
    owner: _Group | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text holds, each in order of writing."""

    found: tuple[Found, ...]
    tags: tuple[FoundTag, ...]


def read_coordinates(text: str, finish: Finish = Finish.UNKNOWN) -> Reading:
    """Every group of numbers in the form of a box, and every tag. Never raises; linear in the text's length.

    `finish` matters for bare numbers at the very end, which a token limit may have cut short.
    """
    reader = _Reader(text, finish)
    reader.read()
    return Reading(tuple(sorted(reader.found, key=lambda found: found.start)), tuple(reader.tags))


class _Reader:
    """The pass over the tokens. It leaves `found`, not yet in order, and `tags`."""

    def __init__(self, text: str, finish: Finish) -> None:
        self.text = text
        self.finish = finish
        self.found: list[Found] = []
        self.tags: list[FoundTag] = []
        self.root = _Group("", 0, bare=False)
        self.stack = [self.root]
        self.num_open = {"[": 0, "(": 0, "{": 0}
        self.key: _Key | None = None  # the key whose value comes next
        self.name: _Key | None = None  # a word or string that becomes a key if a separator follows
        self.corners: dict[int, float] = {}
        self.corners_start = 0
        self.run = _Run()
        self.points = _Run()
        self.in_box_mark = False
        self.in_relation = False
        self.ref_start: int | None = None
        self.ref_label: str | None = None
        self.previous = ""  # the kind of the token before, line ends and ornaments left out
        self.last_word = -1  # where the last word outside a string stands

    def read(self) -> None:
        handlers: dict[str, Callable[[re.Match[str]], None]] = {
            "tag": self._tag,
            "mark": self._mark,
            "string": self._string,
            "cut": self._cut,
            "number": self._number,
            "word": self._word,
            "open": self._open,
            "close": self._close,
            "comma": self._comma,
            "separator": self._separator,
            "newline": self._newline,
            "other": self._other,
        }
        for token in TOKEN.finditer(self.text):
            kind = str(token.lastgroup)
            if kind == "ornament":
                continue
            handlers[kind](token)
            if kind != "newline":
                self.previous = kind
        self._flush_run(at_end=True)
        self._break(at_end=True)

    # Tokens

    def _tag(self, token: re.Match[str]) -> None:
        self._break()
        self.in_box_mark = self.in_relation = False
        self.ref_start = self.ref_label = None
        self.tags.append(FoundTag(Tag(token.group()), token.start(), token.end()))

    def _mark(self, token: re.Match[str]) -> None:
        """<ref>, <box> and their kin: Qwen2-VL's, InternVL's and DeepSeek-VL2's spelling."""
        self._break()
        name = token.group().strip("<|/>")
        closes = "/" in token.group() or name.endswith("_end")
        self.in_box_mark = not closes and ("box" in name or name == "det")
        if name not in ("ref", "object_ref_start", "object_ref_end"):
            if name == "pred":
                # ASMv2 repeats the boxes of subject and object after a relation's name: nothing new.
                self.in_relation, self.ref_label = closes, None
            return
        self.in_relation = False
        self.ref_label = None
        if not closes:
            self.ref_start = token.end()
        elif self.ref_start is not None:
            words = self.text[self.ref_start : min(token.start(), self.ref_start + MAX_LABEL)].strip()
            self.ref_label, self.ref_start = words or None, None

    def _string(self, token: re.Match[str]) -> None:
        self._flush_points()
        self._flush_run()
        words, top, key = token.group()[1:-1], self.stack[-1], self.key
        self.key, self.name = None, _Key(words, quoted=True)
        if key is not None and key.cue is _Cue.BOX and (four := _FOUR_NUMBERS.fullmatch(words)):
            self._add([_value(n) for n in four.groups()], token.start() + 1, token.end() - 1)
        elif key is not None and key.label_priority is not None and top.owner is not None:
            self._name_boxes(top.owner, words, key.label_priority)
        elif top.bare and top.numbers and key is None:
            top.label = words.strip() or top.label

    def _cut(self, token: re.Match[str]) -> None:
        self._flush_points()
        self._flush_run()
        self.key = self.name = None

    def _number(self, token: re.Match[str]) -> None:
        value, top, key = _value(token.group()), self.stack[-1], self.key
        self.key = self.name = None
        if top.bare:
            top.numbers.append(value)
            top.numbers_end = token.end()
            return
        self._flush_points()
        if self.previous == "separator" and key is not None and key.name.lower() in _CORNER:
            self._corner(_CORNER[key.name.lower()], value, token)
        joined = self.previous == "comma" or (self.previous == "number" and self.in_box_mark)
        if joined and self.run.numbers:
            self.corners.clear()
            self.run.numbers.append(value)
            self.run.end = token.end()
            return
        self._flush_run()
        self.run = _Run(self._run_cue(token.start()), [value], token.start(), token.end())

    def _word(self, token: re.Match[str]) -> None:
        word, top = token.group(), self.stack[-1]
        if top.bare and word.lower() in ("nan", "inf", "infinity"):
            top.numbers.append(float(word))
            top.numbers_end = token.end()
            return
        self._flush_points()
        self._flush_run()
        if word.lower() not in _CORNER:
            self.corners.clear()
        top.bare = False
        self.key, self.name = None, _Key(word, quoted=False)
        self.in_box_mark = self.in_relation = False
        self.ref_label = None
        if word.lower() not in _LITERALS:
            self.last_word = token.start()

    def _open(self, token: re.Match[str]) -> None:
        self._flush_run()
        self.corners.clear()
        parent, bracket = self.stack[-1], token.group()
        group = _Group(bracket, token.start(), key=self.key)
        group.cue, group.label = self._cue_of_group(parent), self._label_of_group(parent, token)
        group.owner = group if bracket == "{" else parent.owner
        if parent.bare and parent.numbers:
            self._flush_points()
        parent.bare = False
        self.stack.append(group)
        self.num_open[bracket] += 1
        self.key = self.name = None

    def _close(self, token: re.Match[str]) -> None:
        self._flush_run()
        self.key = self.name = None
        opener, top = _OPENER[token.group()], self.stack[-1]
        if not top.bare:
            self._flush_points()
        if self.num_open[opener]:
            while self._pop(token.end()).opener != opener:
                pass
        elif top.bare and top.numbers:
            self._pop(token.end())  # "[1, 2, 3, 4)": the wrong bracket, but nothing else it could close

    def _comma(self, token: re.Match[str]) -> None:
        self.key = self.name = None

    def _separator(self, token: re.Match[str]) -> None:
        self._flush_points()
        self._flush_run()
        self.stack[-1].bare = False
        self.key, self.name = self.name, None

    def _newline(self, token: re.Match[str]) -> None:
        self._flush_points()
        if not self.in_box_mark:
            self._flush_run()

    def _other(self, token: re.Match[str]) -> None:
        self._flush_points()
        self._flush_run()
        self.stack[-1].bare = False
        self.key = self.name = None

    # Groups

    def _cue_of_group(self, parent: _Group) -> _Cue:
        if self.key is not None and self.key.cue is not _Cue.NONE:
            return self.key.cue
        if self.in_box_mark:
            return _Cue.BOX
        return parent.cue if parent.opener in ("[", "(") else _Cue.NONE

    def _label_of_group(self, parent: _Group, token: re.Match[str]) -> str | None:
        """A list's label is its parent list's; `car[[..]]` names its boxes by the phrase that touches it."""
        if parent.opener == "[":
            return parent.label
        start = token.start()
        if self.previous != "word" or self.text[start : start + 2] != "[[":
            return None
        phrase = _PHRASE.search(self.text, max(0, start - CUE_REACH), start)
        if phrase is None or 0 < phrase.start() == start - CUE_REACH:
            return None  # a phrase longer than the reach is a sentence, not a name
        return phrase.group().strip()

    def _pop(self, end: int) -> _Group:
        """Close the innermost bracket; `end` is where its text ends if it is a number list."""
        group = self.stack.pop()
        self.num_open[group.opener] -= 1
        if group.bare:
            self._close_list(group, end)
        elif group.opener == "{":
            self._close_object(group)
        return group

    def _close_list(self, group: _Group, end: int) -> None:
        count = len(group.numbers)
        is_point = count == 2 and (group.opener == "(" or group.cue is _Cue.BOX)
        if is_point and group.cue is not _Cue.POINT:
            self._add_point(group, end)
            return
        self._flush_points()
        if group.cue is _Cue.POINT or count == 0:
            return
        if count == 4:
            self._add(group.numbers, group.start, end, label=group.label)
        elif count > 4 or group.cue is _Cue.BOX:
            self._add(group.numbers, group.start, end, reason=Rejection.NOT_FOUR_NUMBERS)

    def _close_object(self, group: _Group) -> None:
        """Give the object's labels to its boxes; hand a nested name or box to the object around it."""
        _share_labels(group.entries)
        outer = self.stack[-1].owner
        if outer is None or group.key is None or not group.entries:
            return
        priority = group.key.label_priority
        labels = [entry for entry in group.entries if isinstance(entry, _Label)]
        if priority is not None and labels:
            self._name_boxes(outer, min(labels, key=lambda entry: entry.priority).text, priority)
        elif group.key.cue is _Cue.BOX and not labels and len(group.entries) == 1:
            outer.entries.append(group.entries[0])

    def _name_boxes(self, owner: _Group, words: str, priority: int) -> None:
        """Put a label among an object's boxes; of two in a row the one with the better key stays."""
        if not words.strip():
            return
        last = owner.entries[-1] if owner.entries else None
        if not isinstance(last, _Label):
            owner.entries.append(_Label(words.strip(), priority))
        elif priority < last.priority:
            last.text, last.priority = words.strip(), priority

    def _break(self, *, at_end: bool = False) -> None:
        """A tag, a token or the end of the text ends every open bracket."""
        self._flush_points()
        self._flush_run()
        self.corners.clear()
        self.key = self.name = None
        top = self.stack[-1]
        if top.bare and top.cue is not _Cue.POINT and (len(top.numbers) > 1 or top.cue is _Cue.BOX):
            end = top.numbers_end or top.start + 1
            self._add(top.numbers, top.start, end, reason=Rejection.UNFINISHED)
        elif at_end and top.owner is not None:
            self._cut_off(top.owner)
        while len(self.stack) > 1:
            group = self.stack.pop()
            if group.opener == "{":
                _share_labels(group.entries)
        self.num_open = dict.fromkeys(self.num_open, 0)

    def _cut_off(self, group: _Group) -> None:
        """The text ends inside an object: its last box is unfinished, unless prose has followed it."""
        last = next((entry for entry in reversed(group.entries) if isinstance(entry, Found)), None)
        if last is not None and last.start > self.last_word:
            last.reason = last.reason or Rejection.UNFINISHED

    # Numbers

    def _add(
        self,
        numbers: Sequence[float],
        start: int,
        end: int,
        *,
        label: str | None = None,
        reason: Rejection | None = None,
    ) -> None:
        self._keep(Found(tuple(numbers), start, end, label, reason), self.stack[-1].owner)

    def _keep(self, found: Found, owner: _Group | None) -> None:
        if self.in_relation and self.in_box_mark:
            return
        found.label = found.label or self.ref_label
        self.found.append(found)
        if owner is not None:
            owner.entries.append(found)

    def _add_point(self, group: _Group, end: int) -> None:
        if not self.points.numbers:
            owner = self.stack[-1].owner
            self.points = _Run(group.cue, [], group.start, end, group.label, owner)
        self.points.numbers += group.numbers
        self.points.end = end

    def _flush_points(self) -> None:
        """Two points in a row are a box; one is a point, three or more are an outline."""
        points, self.points = self.points, _Run()
        if len(points.numbers) == 4:
            self._keep(Found(tuple(points.numbers), points.start, points.end, points.label), points.owner)
        elif points.numbers and points.cue is _Cue.BOX:
            reason = Rejection.NOT_FOUR_NUMBERS
            self._keep(Found(tuple(points.numbers), points.start, points.end, None, reason), None)

    def _run_cue(self, start: int) -> _Cue:
        if self.in_box_mark:
            return _Cue.BOX
        if self.previous != "separator":
            return _Cue.NONE
        before = self.text[max(0, start - CUE_REACH) : start].rpartition("\n")[2]
        return _Cue.BOX if _BOX_WORD.search(before) else _Cue.NONE

    def _flush_run(self, *, at_end: bool = False) -> None:
        run, self.run = self.run, _Run()
        if run.cue is not _Cue.BOX or len(run.numbers) < 3:
            return
        reason = None if len(run.numbers) == 4 else Rejection.NOT_FOUR_NUMBERS
        if at_end and self.finish is Finish.LENGTH:
            reason = Rejection.UNFINISHED
        self._add(run.numbers, run.start, run.end, reason=reason)

    def _corner(self, slot: int, value: float, token: re.Match[str]) -> None:
        if slot in self.corners:
            self.corners.clear()
        if not self.corners:
            self.corners_start = token.start()
        self.corners[slot] = value
        if len(self.corners) == 4:
            self._add([self.corners[i] for i in range(4)], self.corners_start, token.end())
            self.corners.clear()


def _share_labels(entries: Sequence[Found | _Label]) -> None:
    """Name each box by the label before it where the object starts with a label, else by the one after it."""
    label: str | None = None
    for entry in entries if entries and isinstance(entries[0], _Label) else reversed(entries):
        if isinstance(entry, _Label):
            label = entry.text
        elif entry.label is None:
            entry.label = label


def _value(digits: str) -> float:
    """The number; of a runaway one only as many digits as decide that it is out of any picture."""
    try:
        return float(digits[:MAX_DIGITS])
    except ValueError:  # "1.2.3" in a quoted box, which no number token can be
        return float("nan")
