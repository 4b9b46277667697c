"""The words that `coordinates.py` reads a text by: tags, strings, numbers, brackets.

Every alternative is bounded or possessive, so that cutting a text into tokens takes linear time.
"""

from __future__ import annotations

import re
import unicodedata

MAX_LABEL = 120  # characters; a longer "label" is text that lost its closing quote

# The zeros of the decimal digits that models write besides ASCII: Arabic, Persian, Devanagari, full-width.
_ZEROS = "\u0660\u06f0\u0966\uff10"
_ASCII = {
    **{ord(zero) + value: str(value) for zero in _ZEROS for value in range(10)},
    **dict(zip(map(ord, "\uff08\uff09\uff3b\uff3d\uff5b\uff5d\u3010\u3011\u3014\u3015"), "()[]{}[][]", strict=True)),
    **dict(zip(map(ord, "\uff0c\u3001\uff1b\u060c\uff1a\uff1d\uff0e\uff05"), ",,;,:=.%", strict=True)),
    **dict(zip(map(ord, "\uff0d\u2212\uff0b"), "--+", strict=True)),
    **{ord(c): unicodedata.normalize("NFKC", c) for c in map(chr, (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)))},
}  # fmt: skip


def ascii_forms(text: str) -> str:
    """The text with full-width brackets, digits, letters and marks as ASCII, character for character.

    So are Arabic, Persian and Devanagari digits, the ideographic comma and the minus sign. The length stays, and with
    it every offset. No tag comes of it: full-width angle brackets stay.
    """
    return text if text.isascii() else text.translate(_ASCII)


_SECTION_TAG = r"</?(?:think|rethink|answer)>"
_SPECIAL_NAME = r"object_ref_start|object_ref_end|box_start|box_end|ref|det|bbox|box|pred"
_SPECIAL_TOKEN = rf"<\|?/?(?:{_SPECIAL_NAME})\|?>"


def _string(opening: str, closing: str) -> tuple[str, str]:
    """Patterns of a quoted string, whole and cut off by the end of the text.

    A string never holds what may be a box, a tag or a line's end, so that a stray quote cannot hide one.
    """
    inside_word = r"|(?<=\w)'(?=\w)" if closing == "'" else ""
    body = (
        rf"(?:[^{opening}{closing}\\\n\[\]{{}}<(]|\\[^\n\[\]{{}}<(]"
        rf"|<(?!/?(?:think|rethink|answer|{_SPECIAL_NAME})>|\||/\|)|\((?! ?[-+.0-9(]){inside_word})"
    )
    after = r"(?!\w)" if closing == "'" else ""
    before = r"(?<!\w)" if opening == "'" else ""
    whole = rf"{before}{opening}{body}{{0,{MAX_LABEL}}}+{closing}{after}"
    cut = rf"{before}{opening}{body}{{1,{MAX_LABEL}}}+\Z"
    return whole, cut


# Full-width quotes stay what they are in `ascii_forms`: inside a string in other quotes they end nothing.
QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\uff02", "\uff02"))
_STRINGS = [_string(*pair) for pair in QUOTES]

# The unit is part of the number: "10px", "10 px", "2.5%". A number that a letter follows is a word.
NUMBER = (
    r"(?<![\w.])[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+"
    r"(?:[ \t]?(?:px|PX|pixels?)(?!\w)|[ \t]?%|(?!\w))"
)

TOKEN = re.compile(
    "|".join(
        f"(?P<{kind}>{pattern})"
        for kind, pattern in (
            ("tag", _SECTION_TAG),
            ("special", _SPECIAL_TOKEN),
            ("string", "|".join(whole for whole, _ in _STRINGS)),
            ("unclosed", "|".join(cut for _, cut in _STRINGS)),
            ("number", NUMBER),
            ("word", r"\w++(?:-\w++)*+"),
            ("open", r"[\[({]"),
            ("close", r"[\])}]"),
            ("comma", "[,;]"),
            ("separator", "[:=]"),
            ("newline", r"\n"),
            ("markup", "[\"'`*\\\\\u201c\u201d\uff02]"),
            ("other", r"\S"),
        )
    )
)
