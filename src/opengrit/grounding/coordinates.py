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
from dataclasses import dataclass

from opengrit.core.types import Finish, FoundTag, Rejection, Tag
from opengrit.grounding.candidates import Bracket, Candidate, Cue, Key, Label, Run, share_labels
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


@dataclass(frozen=True, slots=True)
class Scan:
    """What a text holds, each in order of writing."""

    found: tuple[Candidate, ...]
    tags: tuple[FoundTag, ...]


def read_coordinates(text: str, finish: Finish = Finish.UNKNOWN) -> Scan:
    """Every group of numbers in the form of a box, and every tag. Never raises; linear in the text's length.

    `finish` matters for bare numbers at the very end, which a token limit may have cut short.
    """
    scanner = _Scanner(text, finish)
    scanner.read()
    return Scan(tuple(sorted(scanner.found, key=lambda found: found.start)), tuple(scanner.tags))


class _Scanner:
    """The pass over the tokens. It leaves `found`, not yet in order, and `tags`."""

    def __init__(self, text: str, finish: Finish) -> None:
        self.text = text
        self.finish = finish
        self.found: list[Candidate] = []
        self.tags: list[FoundTag] = []
        self.root = Bracket("", 0, bare=False)
        self.stack = [self.root]
        self.num_open = {"[": 0, "(": 0, "{": 0}
        self.key: Key | None = None  # the key whose value comes next
        self.name: Key | None = None  # a word or string that becomes a key if a separator follows
        self.corners: dict[int, float] = {}
        self.corners_start = 0
        self.run = Run()
        self.points = Run()
        self.in_box_token = False
        self.in_relation = False
        self.ref_start: int | None = None
        self.ref_label: str | None = None
        self.previous = ""  # the kind of the token before, line ends and markup left out
        self.last_word = -1  # where the last word outside a string stands

    def read(self) -> None:
        handlers: dict[str, Callable[[re.Match[str]], None]] = {
            "tag": self._tag,
            "special": self._special,
            "string": self._string,
            "unclosed": self._unclosed,
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
            if kind == "markup":
                continue
            handlers[kind](token)
            if kind != "newline":
                self.previous = kind
        self._flush_run(at_end=True)
        self._break(at_end=True)

    # Tokens

    def _tag(self, token: re.Match[str]) -> None:
        self._break()
        self.in_box_token = self.in_relation = False
        self.ref_start = self.ref_label = None
        self.tags.append(FoundTag(Tag(token.group()), token.start(), token.end()))

    def _special(self, token: re.Match[str]) -> None:
        """<ref>, <box> and their kin: Qwen2-VL's, InternVL's and DeepSeek-VL2's spelling."""
        self._break()
        name = token.group().strip("<|/>")
        closes = "/" in token.group() or name.endswith("_end")
        self.in_box_token = not closes and ("box" in name or name == "det")
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
        self._flush()
        words, top, key = token.group()[1:-1], self.stack[-1], self.key
        self.key, self.name = None, Key(words, quoted=True)
        if key is not None and key.cue is Cue.BOX and (four := _FOUR_NUMBERS.fullmatch(words)):
            self._add([_value(n) for n in four.groups()], token.start() + 1, token.end() - 1)
        elif key is not None and key.label_priority is not None and top.owner is not None:
            self._name_boxes(top.owner, words, key.label_priority)
        elif top.bare and top.numbers and key is None:
            top.label = words.strip() or top.label

    def _unclosed(self, token: re.Match[str]) -> None:
        self._flush()
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
        joined = self.previous == "comma" or (self.previous == "number" and self.in_box_token)
        if joined and self.run.numbers:
            self.corners.clear()
            self.run.numbers.append(value)
            self.run.end = token.end()
            return
        self._flush_run()
        self.run = Run(self._run_cue(token.start()), [value], token.start(), token.end())

    def _word(self, token: re.Match[str]) -> None:
        word, top = token.group(), self.stack[-1]
        if top.bare and word.lower() in ("nan", "inf", "infinity"):
            top.numbers.append(float(word))
            top.numbers_end = token.end()
            return
        self._flush()
        if word.lower() not in _CORNER:
            self.corners.clear()
        top.bare = False
        self.key, self.name = None, Key(word, quoted=False)
        self.in_box_token = self.in_relation = False
        self.ref_label = None
        if word.lower() not in _LITERALS:
            self.last_word = token.start()

    def _open(self, token: re.Match[str]) -> None:
        self._flush_run()
        self.corners.clear()
        parent, opener = self.stack[-1], token.group()
        bracket = Bracket(opener, token.start(), key=self.key)
        bracket.cue, bracket.label = self._cue_of_bracket(parent), self._label_of_bracket(parent, token)
        bracket.owner = bracket if opener == "{" else parent.owner
        if parent.bare and parent.numbers:
            self._flush_points()
        parent.bare = False
        self.stack.append(bracket)
        self.num_open[opener] += 1
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
        self._flush()
        self.stack[-1].bare = False
        self.key, self.name = self.name, None

    def _newline(self, token: re.Match[str]) -> None:
        self._flush_points()
        if not self.in_box_token:
            self._flush_run()

    def _other(self, token: re.Match[str]) -> None:
        self._flush()
        self.stack[-1].bare = False
        self.key = self.name = None

    # Brackets

    def _cue_of_bracket(self, parent: Bracket) -> Cue:
        if self.key is not None and self.key.cue is not Cue.NONE:
            return self.key.cue
        if self.in_box_token:
            return Cue.BOX
        return parent.cue if parent.opener in ("[", "(") else Cue.NONE

    def _label_of_bracket(self, parent: Bracket, token: re.Match[str]) -> str | None:
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

    def _pop(self, end: int) -> Bracket:
        """Close the innermost bracket; `end` is where its text ends if it is a number list."""
        bracket = self.stack.pop()
        self.num_open[bracket.opener] -= 1
        if bracket.bare:
            self._close_list(bracket, end)
        elif bracket.opener == "{":
            self._close_object(bracket)
        return bracket

    def _close_list(self, bracket: Bracket, end: int) -> None:
        count = len(bracket.numbers)
        is_point = count == 2 and (bracket.opener == "(" or bracket.cue is Cue.BOX)
        if is_point and bracket.cue is not Cue.POINT:
            self._add_point(bracket, end)
            return
        self._flush_points()
        if bracket.cue is Cue.POINT or count == 0:
            return
        if count == 4:
            self._add(bracket.numbers, bracket.start, end, label=bracket.label)
        elif count > 4 or bracket.cue is Cue.BOX:
            self._add(bracket.numbers, bracket.start, end, reason=Rejection.NOT_FOUR_NUMBERS)

    def _close_object(self, bracket: Bracket) -> None:
        """Give the object's labels to its boxes; hand a nested name or box to the object around it."""
        share_labels(bracket.entries)
        outer = self.stack[-1].owner
        if outer is None or bracket.key is None or not bracket.entries:
            return
        priority = bracket.key.label_priority
        labels = [entry for entry in bracket.entries if isinstance(entry, Label)]
        if priority is not None and labels:
            self._name_boxes(outer, min(labels, key=lambda entry: entry.priority).text, priority)
        elif bracket.key.cue is Cue.BOX and not labels and len(bracket.entries) == 1:
            outer.entries.append(bracket.entries[0])

    def _name_boxes(self, owner: Bracket, words: str, priority: int) -> None:
        """Put a label among an object's boxes; of two in a row the one with the better key stays."""
        if not words.strip():
            return
        last = owner.entries[-1] if owner.entries else None
        if not isinstance(last, Label):
            owner.entries.append(Label(words.strip(), priority))
        elif priority < last.priority:
            last.text, last.priority = words.strip(), priority

    def _break(self, *, at_end: bool = False) -> None:
        """A tag, a token or the end of the text ends every open bracket."""
        self._flush()
        self.corners.clear()
        self.key = self.name = None
        top = self.stack[-1]
        if top.bare and top.cue is not Cue.POINT and (len(top.numbers) > 1 or top.cue is Cue.BOX):
            end = top.numbers_end or top.start + 1
            self._add(top.numbers, top.start, end, reason=Rejection.UNFINISHED)
        elif at_end and top.owner is not None:
            self._cut_off(top.owner)
        while len(self.stack) > 1:
            bracket = self.stack.pop()
            if bracket.opener == "{":
                share_labels(bracket.entries)
        self.num_open = dict.fromkeys(self.num_open, 0)

    def _cut_off(self, bracket: Bracket) -> None:
        """The text ends inside an object: its last box is unfinished, unless prose has followed it."""
        last = next((entry for entry in reversed(bracket.entries) if isinstance(entry, Candidate)), None)
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
        self._keep(Candidate(tuple(numbers), start, end, label, reason), self.stack[-1].owner)

    def _keep(self, found: Candidate, owner: Bracket | None) -> None:
        if self.in_relation and self.in_box_token:
            return
        found.label = found.label or self.ref_label
        self.found.append(found)
        if owner is not None:
            owner.entries.append(found)

    def _add_point(self, bracket: Bracket, end: int) -> None:
        if not self.points.numbers:
            owner = self.stack[-1].owner
            self.points = Run(bracket.cue, [], bracket.start, end, bracket.label, owner)
        self.points.numbers += bracket.numbers
        self.points.end = end

    def _flush(self) -> None:
        self._flush_points()
        self._flush_run()

    def _flush_points(self) -> None:
        """Two points in a row are a box; one is a point, three or more are an outline."""
        points, self.points = self.points, Run()
        if len(points.numbers) == 4:
            self._keep(Candidate(tuple(points.numbers), points.start, points.end, points.label), points.owner)
        elif points.numbers and points.cue is Cue.BOX:
            reason = Rejection.NOT_FOUR_NUMBERS
            self._keep(Candidate(tuple(points.numbers), points.start, points.end, None, reason), None)

    def _run_cue(self, start: int) -> Cue:
        if self.in_box_token:
            return Cue.BOX
        if self.previous != "separator":
            return Cue.NONE
        before = self.text[max(0, start - CUE_REACH) : start].rpartition("\n")[2]
        return Cue.BOX if _BOX_WORD.search(before) else Cue.NONE

    def _flush_run(self, *, at_end: bool = False) -> None:
        run, self.run = self.run, Run()
        if run.cue is not Cue.BOX or len(run.numbers) < 3:
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


def _value(digits: str) -> float:
    """The number; of a runaway one only as many digits as decide that it is out of any picture."""
    try:
        return float(digits[:MAX_DIGITS])
    except ValueError:  # "1.2.3" in a quoted box, which no number token can be
        return float("nan")
