"""An answer's text as clean words: one spelling of Unicode, no markup, no LaTeX wrappers, no boxes; then its tokens.

What changes the meaning of a number or an option stays: signs, operators, units, superscripts, currency.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from opengrit.grounding.coordinates import read_coordinates
from opengrit.judges.latex import unlatex

_LONGEST_RUN_OF_MARKS = 30  # Unicode's own bound (UAX 15, stream-safe text)

_SUPERSCRIPTS = dict(
    zip("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "0123456789", strict=True)
)
# What NFKC would glue to its neighbours or replace by what means something else.
_BEFORE_NFKC = str.maketrans(
    {
        **{raised: f"^{digit}" for raised, digit in _SUPERSCRIPTS.items()},
        **{part: f" {unicodedata.normalize('NFKC', part)}" for part in map(chr, [*range(0x2150, 0x215F), 0xBC, 0xBD, 0xBE])},
        "\u00ba": "\u00b0", "\u2032": "'", "\u02da": "\u00b0",
    }
)  # fmt: skip
_AFTER_NFKC = str.maketrans(
    {
        "\u2044": "/", "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "\u2013", "\u2015": "\u2014",
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"', "\u300c": '"', "\u300d": '"',
        "\u3002": ".", "\u3001": ",", "\u3010": "[", "\u3011": "]", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/",
        "\u2264": "\u2264", "\u2a7d": "\u2264", "\u2265": "\u2265", "\u2a7e": "\u2265", "\u2248": "~", "\u223c": "~", "\u2215": "/", "\u2236": ":",
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\ufe0f": None, "\u20e3": None, "\u00ad": None,
    }
)  # fmt: skip

_TAGS = re.compile(
    r"</?(?:think|rethink|answer|ref|box|p|quad|pred|det|b|i|em|strong|u|sup|sub|br|code)\s?/?>|<\|/?[a-z_]+\|>",
)
_FENCE = re.compile(r"```+[a-z]*+", re.IGNORECASE)
_HELD = "\ue000"  # where a box was
_BOX_OBJECT = re.compile(rf"\{{[^{{}}{_HELD}]*+{_HELD}[^{{}}]*+\}}")
_BOX_KEY = re.compile(rf"[\"']?+[A-Za-z_]\w*+[\"']?+\s*+[:=]\s*+{_HELD}")
_BOX_LIST = re.compile(rf"[\[(][\s,]*+{_HELD}(?:[\s,]*+{_HELD})*+[\s,]*+[\])]")
_ANSWER_KEY = re.compile(r"\s*+\{\s*+[\"']?(?:final_?)?answer[\"']?\s*+:([^{}]*+)\}\s*+", re.IGNORECASE)
_MATH_QUOTES = re.compile(r"\\[()\[\]]|\$\$")
_MATH = re.compile(r"\$([^$\n]*+)\$")
_ESCAPED = re.compile(r"\\([%$#&_])")
_DEGREES = re.compile(r"\^?\s?\\circ\b|\^\{\s?\\circ\s?\}|\*?\\degree\b")
_STARS = re.compile(
    r"\*\*+|__+|(?<![\w)\]])\*(?=\w)|(?<=[\w.!?:)])\*(?![\w(\\])|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)"
)
_HEADING = re.compile(r"(?m)^[ \t]*+(?:#{1,6}[ \t]++|[->*\u2022][ \t]++(?=[^\W\d_]))")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})++|(?:[ \u00a0\u2009\u202f]\d{3})++)(?![\d,]\d|\d)")

_ANSWER_IN_CHINESE = re.compile(
    r"(?:\u6b63\u786e\u7684?)?(?:\u7b54\u6848|\u9009\u9879)[\u662f\u4e3a]?\s*+[:\uff1a]?"
)
_CHOOSE_IN_CHINESE = re.compile(r"(?:\u6211|\u5e94\u8be5|\u5e94|\u6545)?\u9009\u62e9?")
_SO_IN_CHINESE = re.compile(r"(?:\u56e0\u6b64|\u6240\u4ee5)\s*+,?")
_SCRIPTS_MEET = re.compile(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])")
_SUBSCRIPT = re.compile(r"(?<=\d)(?=[\u2080-\u2089])")
_EQUALS = re.compile(r"\s*+(?:=>?|->|\u2192)\s*+")
_ANGLED = re.compile(r"<([^<>]*+)>")
_BOXED_LINE = re.compile(r"(?m)^([ \t$]*+)(?=\\boxed\{)")

_TOKEN = re.compile(r"\d++(?:\.\d++)?+|\.\d++|[^\W\d_]++(?:'[^\W\d_]++)?+|\n|[^\w\s]|_")
_ENDERS = frozenset(".;!?\n")
_MARKS = frozenset(".,;:!?()[]{}\n\u2014\u2013\u2026")
_DIGITS_OF_A_NUMBER = 40  # Python limits how long a digit string it converts; no answer is as long


def composed(text: str) -> str:
    """The text in Unicode's form NFKC. Long runs of combining marks, which are sorted in quadratic time, are broken up."""
    if text.isascii():
        return text
    safe, run = list[str](), 0
    for letter in text:
        run = run + 1 if unicodedata.combining(letter) else 0
        if run > _LONGEST_RUN_OF_MARKS:
            safe.append("\u034f")  # the combining grapheme joiner ends a run and shows nothing
            run = 1
        safe.append(letter)
    return unicodedata.normalize("NFKC", "".join(safe))


def plain(text: str) -> str:
    """The text in one spelling of Unicode, without invisible characters; superscripts are written ^2."""
    if not text.isascii():
        text = _SUBSCRIPT.sub("_", text)
        text = composed(text.translate(_BEFORE_NFKC)).translate(_AFTER_NFKC)
        text = _SO_IN_CHINESE.sub(" so ", _ANSWER_IN_CHINESE.sub(" answer: ", text))
        text = _SCRIPTS_MEET.sub(" ", _CHOOSE_IN_CHINESE.sub(" choose ", text))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _THOUSANDS.sub(lambda found: "".join(filter(str.isdigit, found.group())), text)


def clean(text: str, *, boxes: bool = False) -> str:
    """An answer without tags, Markdown, LaTeX wrappers and quotation marks; without its boxes unless they are kept."""
    text = plain(text) if boxes else without_boxes(plain(text))
    text = _FENCE.sub("\n", _TAGS.sub(" ", text))
    if (keyed := _ANSWER_KEY.fullmatch(text)) is not None:
        text = keyed[1]
    text = _BOXED_LINE.sub(r"\1 answer: ", text)
    text = _DEGREES.sub("\u00b0", _ESCAPED.sub(r"\1", _MATH_QUOTES.sub(" ", text)))
    text = unlatex(text)
    text = _MATH.sub(r" \1 ", text)
    text = _STARS.sub("", _HEADING.sub("", text)).replace('"', " ").replace("`", " ").strip()
    if (equals := _EQUALS.match(text)) is not None:
        text = text[equals.end() :]
    return angled[1].strip() if (angled := _ANGLED.fullmatch(text)) is not None else text


def without_boxes(text: str) -> str:
    """The text without what the parser of boxes takes for one, its key, and the object or list around it."""
    if not any(letter.isdigit() for letter in text):
        return text
    parts, position = list[str](), 0
    for found in read_coordinates(text).found:
        if found.start >= position:
            parts += (text[position : found.start], _HELD)
            position = max(found.end, found.start)
    if not parts:
        return text
    text = "".join((*parts, text[position:]))
    text = _BOX_KEY.sub(_HELD, _BOX_OBJECT.sub(_HELD, text))
    return _BOX_LIST.sub(" ", text).replace(_HELD, " ")


class Token(NamedTuple):
    """A word in lower case, a number, or one mark or symbol."""

    text: str
    raw: str
    glued: bool  # no space between it and a word or number before it
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        return self.text[-1].isdigit()

    @property
    def is_word(self) -> bool:
        return self.text[0].isalpha()

    @property
    def is_mark(self) -> bool:
        """Whether it sets a part of a sentence off from another."""
        return self.text in _MARKS

    @property
    def ends_sentence(self) -> bool:
        return self.text in _ENDERS


def tokens(text: str) -> list[Token]:
    """The tokens of a clean text. A hyphen inside a word is no token; a dash between spaces is a mark."""
    found = list[Token]()
    raw = list(_TOKEN.finditer(text))
    for index, token in enumerate(raw):
        word, start, end = token.group(), token.start(), token.end()
        before = text[start - 1] if start else " "
        after = text[end] if end < len(text) else " "
        if word == "'":
            continue
        if word in "-\u2013":
            if before.isalpha() and after.isalpha():
                if word == "-" and not (_is_single(text, start - 1) and _is_single(text, end)):
                    continue
                word = "-" if word == "-" else "\u2014"
            elif after.isspace() and (before.isspace() or not before.isdigit()):
                word = "\u2014"
            elif word == "\u2013":
                word = "-" if after.isdigit() or before.isspace() else "\u2014"
        elif word.isdigit() and len(word) > _DIGITS_OF_A_NUMBER:
            word = "\ufffd"
        follows = index > 0 and raw[index - 1].end() == start
        hyphened = before == "-" and start > 1 and text[start - 2].isalpha() and word.isalpha()
        glued = follows and (before.isalnum() or hyphened)
        found.append(Token(word.lower(), word, glued, start, end))
    return found


def _is_single(text: str, place: int) -> bool:
    """Whether the letter at a place is a word of its own."""
    return not text[place - 1 : place].isalnum() and not text[place + 1 : place + 2].isalnum()


def words_of(parts: Sequence[Token]) -> list[str]:
    """The words among tokens, each in its simplest form."""
    return [singular(token.text) for token in parts if token.is_word]


IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "leaves": "leaf", "shelves": "shelf", "knives": "knife", "wolves": "wolf",
    "buses": "bus", "skis": "ski", "tomatoes": "tomato", "potatoes": "potato", "loaves": "loaf", "scarves": "scarf",
    "grey": "gray", "aeroplane": "airplane", "doughnut": "donut", "colour": "color", "tv": "television",
}  # fmt: skip


def singular(word: str) -> str:
    """A word in its singular and in one spelling: dogs and dog, grey and gray."""
    word = word.removesuffix("'s")
    word = IRREGULAR.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes", "zzes")):
        word = word[:-2]
    elif word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is", "'s")):
        word = word[:-1]
    return IRREGULAR.get(word, word)
