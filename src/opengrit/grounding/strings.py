"""Quoted strings in what a model writes: where a label ends that may hold anything, what its escapes mean, numbers in quotes."""

from __future__ import annotations

import json
import re
import sys

from opengrit.core.escaping import join_surrogates
from opengrit.grounding.tokens import NUMBER, QUOTES

_LARGEST = sys.float_info.max
LONGEST = 1_000  # characters of a label that is read whole, brackets and numbers included

_TAG = r"<(?!/?(?:think|rethink|answer)>)"


def _label(opening: str, closing: str, after: str) -> str:
    inside_word = r"|(?<=\w)'(?=\w)" if closing == "'" else ""
    body = rf"(?:[^{opening}{closing}\\\n<]|\\(?:[^\n<]|(?=<))|{_TAG}{inside_word})"
    return rf"{opening}{body}{{0,{LONGEST}}}+(?:{closing}(?={after})|(?P<cut>\\?\Z))"


def _any_label(after: str) -> re.Pattern[str]:
    patterns = [
        _label(*pair, after).replace("?P<cut>", f"?P<cut{number}>") for number, pair in enumerate(QUOTES)
    ]
    return re.compile("|".join(patterns))


_VALUE = _any_label(r"[ \t\r]*+(?:[,;}\])\n]|\Z)")
_KEY = _any_label(r"[ \t\r]*+:")
_KEY_BEFORE = re.compile(r"\s*+[\"'\u201d\uff02]?+\s*+[:=]")

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"'\\/bfnrt]))")
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

_ONE_NUMBER = re.compile(NUMBER)
_NAMED_NUMBER = re.compile(rf"(?<!\w)([A-Za-z]\w*+)\s*+[:=]\s*+({NUMBER})")


def label_at(text: str, start: int, *, is_key: bool = False) -> re.Match[str] | None:
    """The quoted string that opens at `start` and may hold brackets and numbers; None where it is not closed as one.

    It ends where its quote is followed by what ends a value (or, for `is_key`, by a colon), or with the text. A string
    that a line's end or a tag of the format interrupts, or that is longer than LONGEST, is none: it lost its quote.
    """
    found = (_KEY if is_key else _VALUE).match(text, start)
    if found is None or not is_cut(found):
        return found
    return (
        None if is_key or "}" in found.group() else found
    )  # an object that was closed lost the quote before


def is_cut(label: re.Match[str]) -> bool:
    """Whether the text ended inside the string."""
    return label.lastgroup is not None


def key_follows(text: str, end: int) -> bool:
    """Whether what ends at `end` is a key: a colon or an equals sign follows."""
    return _KEY_BEFORE.match(text, end) is not None


def unescaped(words: str) -> str:
    r"""What the inside of a quoted string says: `\"`, `\n` and `\u72d7` are read as JSON does, `\'` as Python does."""
    if "\\" not in words:
        return words
    try:
        return join_surrogates(json.loads(f'"{words}"', strict=False))
    except ValueError:
        return join_surrogates(_ESCAPE.sub(_meaning, words))


def _meaning(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else _CONTROL.get(letter, letter)


def number_and_unit(written: str) -> tuple[float, str]:
    """A number as it is written, with its unit: "%", "px" or none. One out of a float's range is the largest float."""
    digits = written.rstrip("pxPXiels% \t")
    unit = "%" if written.endswith("%") else "px" if len(digits) < len(written) else ""
    return max(-_LARGEST, min(float(digits), _LARGEST)), unit


def quoted_number(words: str) -> tuple[float, str] | None:
    """The number that a whole string is, with its unit; None where it is something else."""
    bare = words.strip()
    return number_and_unit(bare) if _ONE_NUMBER.fullmatch(bare) else None


def quoted_numbers(words: str) -> tuple[list[tuple[str, float, str]], str]:
    """The numbers of a string, each with the name before it ("" where there is none) and its unit, and the rest."""
    names = {match.start(2): match[1] for match in _NAMED_NUMBER.finditer(words)}
    found = [(names.get(m.start(), ""), *number_and_unit(m.group())) for m in _ONE_NUMBER.finditer(words)]
    rest = _ONE_NUMBER.sub("", _NAMED_NUMBER.sub("", words))
    return found, rest.strip(" \t,;")
