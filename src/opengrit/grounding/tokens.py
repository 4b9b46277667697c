"""The words that `coordinates.py` reads a text by: tags, strings, numbers, brackets.

Every alternative is bounded or possessive, so that cutting a text into tokens takes linear time.
"""

from __future__ import annotations

import re

MAX_LABEL = 120  # characters; a longer "label" is text that lost its closing quote

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


_STRINGS = [_string('"', '"'), _string("'", "'"), _string("\u201c", "\u201d")]

TOKEN = re.compile(
    "|".join(
        f"(?P<{kind}>{pattern})"
        for kind, pattern in (
            ("tag", _SECTION_TAG),
            ("special", _SPECIAL_TOKEN),
            ("string", "|".join(whole for whole, _ in _STRINGS)),
            ("unclosed", "|".join(cut for _, cut in _STRINGS)),
            ("number", r"(?<![\w.])[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?!\w)"),
            ("word", r"\w++(?:-\w++)*+"),
            ("open", r"[\[({]"),
            ("close", r"[\])}]"),
            ("comma", "[,;\uff0c]"),
            ("separator", "[:=\uff1a]"),
            ("newline", r"\n"),
            ("markup", "[\"'`*\\\\\u201c\u201d]"),
            ("other", r"\S"),
        )
    )
)
