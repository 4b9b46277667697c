"""Finds numbers in the form of a box in a text, and the tags around them, before any frame judges them.

One pass over the tokens, with a bounded amount of work a token (amortised over a stack of open brackets):
the time is linear in the length of the text, and no text makes it raise.

What counts as a box is a matter of form:

* four numbers alone in brackets of any kind: `(x1, y1, x2, y2)`, `[..]`, `{..}`, also nested, also after
  `"bbox_2d":`, also separated by spaces, also with a string beside them, also where the next key comes before the
  closing bracket;
* two points: `(x1,y1),(x2,y2)`, exactly two in a row, a line's end after the comma included; `[[x1,y1],[x2,y2]]` only
  under a box key or box token;
* named corners: `"x1": 10, "y1": 20, "x2": 30, "y2": 40`, `xmin=..`, `left: ..`, in one bracket or two;
  `"top_left": [10, 20], "bottom_right": [30, 40]`;
* four bare numbers only where the text says so: inside `<box>` and its kin, as the string value of a box key
  (`data-bbox="310 94 658 132"`), or right after `:` or `=` with a box word shortly before on the same line.

A number may be in quotes, have an exponent, a unit (`10px`, `2.5%`), or full-width digits. Where the form says that a box
was meant (a box key, a box token, four numbers and more in brackets) and the numbers are no box, there is a candidate with a
reason: nothing that is written as a box vanishes. Years, list numbers and "1, 2, 3, 4" in prose are not boxes, nor are
numbers inside a label; a run of five or more numbers is never cut into fours. No JSON parser is involved: broken JSON,
repeated keys and single quotes need no special care.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from opengrit.core.types import Finish, FoundTag, Rejection, Tag
from opengrit.grounding.candidates import Bracket, Candidate, Cue, Key, Run, both_units
from opengrit.grounding.collecting import Collector
from opengrit.grounding.corners import another_follows, edge, goes_between, phrase_before, side
from opengrit.grounding.strings import (
    is_cut,
    key_follows,
    label_at,
    number_and_unit,
    quoted_number,
    quoted_numbers,
    unescaped,
)
from opengrit.grounding.tokens import MAX_LABEL, QUOTES, TOKEN, ascii_forms

CUE_REACH = 60  # characters before a bare run of numbers in which a box word is looked for

# "box" alone is no cue: "Counting each box: 1, 2, 3, 4".
_BOX_WORD = re.compile(r"bbox|bounding[ _-]?box(?!es)|coord|x_?min|x1", re.IGNORECASE)
_QUOTES = frozenset(opening for opening, _ in QUOTES)
_LITERALS = frozenset({"true", "false", "null", "none"})
_PHRASE = re.compile(r"[^\n,.:;!?\[\](){}<>\"'`*]*\w\Z")

_OPENER = {"]": "[", ")": "(", "}": "{"}
_POINT_WORDS = frozenset({"left", "right", "corner", "point", "coordinates"})
_POINT = re.compile(r"[ \t\r]*+\([^()]{3,60}+\)")
_UNIT_AFTER = re.compile(r"[ \t]?(?:(px|pixels?)(?!\w)|%)", re.IGNORECASE)
# A name before its boxes may hold anything; one without boxes after it may be where they are written.
_NAME_OF_BOXES = re.compile(
    rf"[^<\n]{{1,{MAX_LABEL}}}+(?=<\|?/?(?:ref|object_ref_end)\|?>\s{{0,9}}+<\|?(?:box_start|bbox|box|det)\|?>)"
)
_BARE_LABEL = re.compile(r"[^\n,;:={}\[\]()\"'<]{1,120}+(?=[,}\n])")


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
    return Scan(tuple(sorted(scanner.boxes.found, key=lambda found: found.start)), tuple(scanner.tags))


class _Scanner:
    """The pass over the tokens. It leaves `boxes.found`, not yet in order, and `tags`."""

    def __init__(self, text: str, finish: Finish) -> None:
        self.text = ascii_forms(text)
        self.as_written = text
        self.finish = finish
        self.boxes = Collector()
        self.tags: list[FoundTag] = []
        self.key: Key | None = None  # the key whose value comes next
        self.name: Key | None = None  # a word or string that becomes a key if a separator follows
        self.ref_start: int | None = None
        self.quote_is_open = False  # of a box key's value that holds brackets: "bbox_2d": "[10, 20, 30, 40]"
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
        position = 0
        while (token := TOKEN.search(self.text, position)) is not None:
            kind = str(token.lastgroup)
            label = self._label_at(token) if token.group()[0] in _QUOTES else None
            if label is not None:
                kind = "unclosed" if is_cut(label) else "string"
                token = label
            elif self.quote_is_open and self.previous == "close" and token.group()[0] in _QUOTES:
                self.quote_is_open, position = False, token.start() + 1
                continue
            position = token.end()
            if kind == "markup":
                in_value = self.previous == "separator" and self.key is not None and self.key.holds_box
                self.quote_is_open = self.quote_is_open or (in_value and token.group() in _QUOTES)
                continue
            handlers[kind](token)
            if self.ref_start == position and (name := _NAME_OF_BOXES.match(self.text, position)):
                position = name.end()
            if kind != "newline":
                self.previous = kind
        self.boxes.flush_run(cut=self.finish is Finish.LENGTH)
        self._break(at_end=True)

    # Tokens

    def _tag(self, token: re.Match[str]) -> None:
        self._break()
        self.boxes.in_box_token = self.boxes.in_relation = False
        self.ref_start = self.boxes.ref_label = None
        self.tags.append(FoundTag(Tag(token.group()), token.start(), token.end()))

    def _special(self, token: re.Match[str]) -> None:
        """<ref>, <box> and their kin: Qwen2-VL's, InternVL's and DeepSeek-VL2's spelling."""
        self._break()
        name = token.group().strip("<|/>")
        closes = "/" in token.group() or name.endswith("_end")
        self.boxes.in_box_token = not closes and ("box" in name or name == "det")
        if name not in ("ref", "object_ref_start", "object_ref_end"):
            if name == "pred":
                # ASMv2 repeats the boxes of subject and object after a relation's name: nothing new.
                self.boxes.in_relation, self.boxes.ref_label = closes, None
            return
        self.boxes.in_relation = False
        self.boxes.ref_label = None
        if not closes:
            self.ref_start = token.end()
        elif self.ref_start is not None:
            words = self.as_written[self.ref_start : min(token.start(), self.ref_start + MAX_LABEL)].strip()
            self.boxes.ref_label, self.ref_start = words or None, None

    def _label_at(self, token: re.Match[str]) -> re.Match[str] | None:
        """The whole string from this quote on, where it is a label, which may hold anything; else None."""
        top, key, start = self.boxes.top, self.key, token.start()
        if self.text[max(0, start - 1) : start] == "\\":
            return None  # JSON inside a JSON string
        if key is not None and self.previous == "separator":
            beside = top.owner is not None and any(isinstance(e, Candidate) for e in top.owner.entries[-2:])
            is_label = key.label_priority is not None or (key.describes and beside)
            return label_at(self.text, start) if is_label else None
        if top.bare and len(top.numbers) >= 4 and self.previous in ("comma", "number"):
            return label_at(self.text, start)
        if top.opener == "{" and self.previous in ("open", "comma"):
            return label_at(self.text, start, is_key=True)
        return None

    def _string(self, token: re.Match[str]) -> None:
        start, end = token.start(), token.end()
        top, key, in_quotes = self.boxes.top, self.key, self.text[start + 1 : end - 1]
        is_key = key_follows(self.text, end)
        number = None if is_key else quoted_number(in_quotes)
        if number is not None and key is None and top.bare and (len(top.numbers) < 4 or top.quoted):
            top.take(*number, end, quoted=True)
            self.name = None
            return
        self.name = None
        if number is not None and key is not None:
            self._loose_number(top, key, end)
            if self.boxes.take_corner(key, *number, start, end):
                self.key = None
                return
        elif key is not None and not is_key and self.boxes.corner_in_quotes(key, in_quotes, start, end):
            self.key = None
            return
        self.boxes.flush()
        words = unescaped(self.as_written[start + 1 : end - 1])
        self.key, self.name = None, Key(words, quoted=True)
        if is_key and top.numbers:
            self.boxes.interrupt(top, by_key=True)
        if key is not None and key.cue is Cue.BOX:
            self.boxes.numbers_in_quotes(in_quotes, start + 1, end - 1)
        elif key is not None and key.label_priority is not None and top.owner is not None:
            self.boxes.name_boxes(top.owner, words, key.label_priority)
        elif top.bare and top.numbers and key is None:
            top.label = words.strip() or top.label

    def _unclosed(self, token: re.Match[str]) -> None:
        self.boxes.flush()
        if self.key is not None and self.key.cue is Cue.BOX and quoted_numbers(token.group()[1:])[0]:
            self.boxes.add([], token.start() + 1, token.end(), reason=Rejection.UNFINISHED)
        self.key = self.name = None

    def _number(self, token: re.Match[str]) -> None:
        value, unit = number_and_unit(token.group())
        top, key = self.boxes.top, self.key
        self.key = self.name = None
        if top.bare:
            top.take(value, unit, token.end())
            return
        self.boxes.flush_points()
        self._loose_number(top, key, token.end())
        is_edge = self.previous == "separator" and key is not None
        if key is not None and is_edge:
            is_edge = self.boxes.take_corner(key, value, unit, token.start(), token.end())
        joined = self.previous == "comma" or (self.previous == "number" and self.boxes.in_box_token)
        if joined and self.boxes.run.numbers:
            self.boxes.corners = None
            self.boxes.run.numbers.append(value)
            self.boxes.run.unit = both_units(self.boxes.run.unit, unit)
            self.boxes.run.end = token.end()
            return
        self.boxes.flush_run()
        cue = Cue.NONE if is_edge and self.boxes.in_box_token else self._run_cue(token.start())
        self.boxes.run = Run(cue, [value], token.start(), token.end(), unit)

    def _loose_number(self, top: Bracket, key: Key | None, end: int) -> None:
        """A number that is in no list: it counts where a box is meant, by a key or by the names of a box's sides."""
        name = None if key is None else side(key.name)
        if name is not None and top.opener == "{":
            top.sides.add(name)
        is_edge = key is not None and edge(key.name) is not None
        if name is not None or (top.cue is Cue.BOX and (key is None or is_edge)):
            self.boxes.loose(top, end)

    def _word(self, token: re.Match[str]) -> None:
        word, top, key = token.group(), self.boxes.top, self.key
        if top.bare and word.lower() in ("nan", "inf", "infinity"):
            top.take(float(word), "", token.end())
            return
        self.boxes.flush()
        if not goes_between(word):
            self.boxes.end_corners()
        self.boxes.interrupt(top, by_key=bool(top.numbers) and key_follows(self.text, token.end()))
        if word[0].isdigit() and top.cue is Cue.BOX:  # "40cm", "0x10"
            self.boxes.loose(top, token.end())
        self.key, self.name = None, Key(word, quoted=False)
        self.boxes.in_box_token = self.boxes.in_relation = False
        self.boxes.ref_label = None
        if word.lower() in _LITERALS:
            return
        self.last_word = token.start()
        if key is not None and key.label_priority is not None and top.owner is not None:
            bare = _BARE_LABEL.match(self.text, token.start()) if self.previous == "separator" else None
            if bare is not None:
                self.boxes.name_boxes(
                    top.owner, self.as_written[bare.start() : bare.end()], key.label_priority
                )

    def _open(self, token: re.Match[str]) -> None:
        self.boxes.flush_run()
        parent, opener = self.boxes.top, token.group()
        pending = self.boxes.corners is not None
        if (
            self.key is None
            and self.previous == "word"
            and (pending or another_follows(self.text, token.start()))
        ):
            corner = phrase_before(self.text, token.start())
            self.key = None if corner is None else Key(corner, quoted=False)
        if parent.bare and parent.numbers:
            self.boxes.flush_points()
        self.boxes.interrupt(parent)
        bracket = Bracket(opener, token.start(), key=self.key)
        bracket.cue, bracket.label = self._cue_of_bracket(parent), self._label_of_bracket(parent, token)
        bracket.owner = bracket if opener == "{" else parent.owner
        if self.key is not None and parent.owner is not None:
            bracket.key_name = self.key.as_label
        if self.key is None or self.key.cue is Cue.BOX:
            bracket.key_name = bracket.key_name or parent.key_name
        self.boxes.open(bracket)
        self.key = self.name = None

    def _close(self, token: re.Match[str]) -> None:
        self.boxes.flush_run()
        self.key = self.name = None
        opener, top = _OPENER[token.group()], self.boxes.top
        if top.bare and top.numbers and (unit := _UNIT_AFTER.match(self.text, token.end())) is not None:
            top.unit = both_units(top.unit, "px" if unit[1] else "%")
        if not top.bare:
            self.boxes.flush_points()
        if self.boxes.num_open[opener]:
            while self.boxes.pop(token.end()).opener != opener:
                pass
        elif top.bare and top.numbers:
            self.boxes.pop(token.end())  # "[1, 2, 3, 4)": the wrong bracket, but nothing else it could close

    def _comma(self, token: re.Match[str]) -> None:
        self.key = self.name = None

    def _separator(self, token: re.Match[str]) -> None:
        self.boxes.flush()
        self.boxes.interrupt(self.boxes.top)
        self.key, self.name = self.name, None
        if self.key is not None and not self.key.quoted and self.key.name.lower() in _POINT_WORDS:
            corner = phrase_before(self.text, token.start())
            self.key = self.key if corner is None else Key(corner, quoted=False)

    def _newline(self, token: re.Match[str]) -> None:
        if self.boxes.in_box_token:
            return
        top = self.boxes.top
        follows = self.previous == "comma" or (
            self.previous == "close" and _POINT.match(self.text, token.end()) is not None
        )
        if not top.bare and top.cue is not Cue.BOX and not follows:
            self.boxes.flush_points()
        if self.boxes.run.cue is not Cue.BOX or self.previous != "comma":
            self.boxes.flush_run()

    def _other(self, token: re.Match[str]) -> None:
        self.boxes.flush()
        self.boxes.interrupt(self.boxes.top)
        self.key = self.name = None

    # Brackets

    def _cue_of_bracket(self, parent: Bracket) -> Cue:
        if self.key is not None and self.key.cue is not Cue.NONE:
            return self.key.cue
        if self.boxes.in_box_token:
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

    def _break(self, *, at_end: bool = False) -> None:
        """A tag, a token or the end of the text ends every open bracket."""
        self.boxes.at_end = at_end
        self.boxes.flush()
        self.boxes.end_corners()
        self.key = self.name = None
        top = self.boxes.top
        if top.bare and top.cue is not Cue.POINT and (len(top.numbers) > 1 or top.cue is Cue.BOX):
            end = top.numbers_end or top.start + 1
            self.boxes.add(top.numbers, top.start, end, reason=Rejection.UNFINISHED)
        elif at_end and top.owner is not None:
            self._cut_off(top.owner)
        self.boxes.close_all()

    def _cut_off(self, bracket: Bracket) -> None:
        """The text ends inside an object: its last box is unfinished, unless prose has followed it."""
        last = next((entry for entry in reversed(bracket.entries) if isinstance(entry, Candidate)), None)
        if last is not None and last.start > self.last_word:
            last.reason = last.reason or Rejection.UNFINISHED

    def _run_cue(self, start: int) -> Cue:
        if self.boxes.in_box_token:
            return Cue.BOX
        if self.previous != "separator":
            return Cue.NONE
        before = self.text[max(0, start - CUE_REACH) : start].rpartition("\n")[2]
        return Cue.BOX if _BOX_WORD.search(before) else Cue.NONE
