"""Expressions of mathematics: one spelling of LaTeX and plain text, and math-verify where it is installed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from opengrit.judges.assertion import Context, is_explanation, is_framing
from opengrit.judges.latex import unlatex
from opengrit.judges.wording import Token, plain, singular, tokens

_PLAIN_MATHS = re.compile(r"[0-9a-z+*/^().\u221a\u03c0 \-]{1,60}", re.IGNORECASE)
_LONG_POWER = re.compile(r"\^[\s({]*+\d{3}|\d{10}|[a-z]{3}", re.IGNORECASE)
_ROOT_SIGN = re.compile(r"\u221a\s*+(\w++|\([^()]*+\))")
_PAIR = re.compile(r"[\d.]++[:\-][\d.]++")
_TO = re.compile(r"(?<=\d) to (?=\d)")
_LONGEST_LEAD = 20
_MOST_CUTS = 6
_LONGEST_EXPRESSION = 80
_ARTICLES = frozenset({"a", "an", "the"})
_OPERATORS = re.compile(
    r"[+*/^=<>\u2264\u2265\u2260\u221a\\\u03c0\u00b1|_{}]|\d\s*[:\-\u2013]\s*\d|[A-Za-z)\d]\s*-\s*[A-Za-z(]"
)


def canonical(text: str) -> str:
    """A text as one string without spaces, case, articles and plurals, with every sign: equal strings say the same."""
    parts = tokens(unlatex(plain(text)))
    while (
        parts
        and parts[-1].text in ".!\n,;"
        and not (parts[-1].text == "!" and len(parts) > 1 and parts[-2].is_number)
    ):
        parts.pop()
    kept = [
        token for at, token in enumerate(parts) if token.text != "\n" and not _is_article(parts, at)
    ] or parts
    joined = list[str]()
    for index, token in enumerate(kept):
        if index and token.is_number and kept[index - 1].is_number:
            joined.append(" ")  # 2 4 is not 24
        joined.append(_canonical(token.text))
    return "".join(joined)


def _is_article(parts: Sequence[Token], at: int) -> bool:
    """Whether "a", "an" or "the" stands before a word; the a of "a+b" does not."""
    following = parts[at + 1] if at + 1 < len(parts) else None
    return (
        parts[at].text in _ARTICLES
        and following is not None
        and (len(following.text) > 1 or following.is_number)
        and not following.is_mark
    )


def _canonical(word: str) -> str:
    if word[0].isdigit() or word[0] == ".":
        whole, _, part = word.partition(".")
        part = part.rstrip("0")
        whole = whole.lstrip("0") or "0"
        return f"{whole}.{part}" if part else whole
    if word in ("\u2013", "\u2014"):
        return "-"
    return singular(word)


def is_expression(text: str) -> bool:
    """Whether a text holds operators, so that words and figures alone do not say it."""
    text = unlatex(plain(text))
    parts = tokens(text)
    in_a_row = any(
        first.is_number and then.is_number and not between.is_word
        for first, between, then in zip(parts, parts[1:], parts[2:], strict=False)
    )
    names = sum(len(token.raw) == 1 and token.is_word for token in parts)
    factorial = any(then.text == "!" and first.is_number for first, then in pairwise(parts))
    return in_a_row or factorial or names > 1 or _OPERATORS.search(text) is not None


def same_expression(expected: str, said: str, context: Context) -> bool:
    """Whether an answer asserts this expression: spelled alike, framed or explained, or equal by math-verify."""
    wanted = canonical(expected)
    said = _TO.sub("-" if "-" in wanted else ":", said) if _PAIR.fullmatch(wanted) else said
    text = unlatex(said)
    for start, end, lead, rest in _framed(text, context):
        if canonical(text[start:end]) == wanted or _is_equal(expected, said if not lead else text[start:end]):
            return is_explanation(rest, context)
    return False


def _framed(text: str, context: Context) -> list[tuple[int, int, bool, list[Token]]]:
    """The ways to cut an answer into framing, an expression and an explanation."""
    parts = tokens(text)
    begins = [0]
    for index in range(min(len(parts), _LONGEST_LEAD)):
        if parts[index].text not in "([{" and is_framing(parts[: index + 1], context):
            begins.append(index + 1)
    ends = [*[index for index, token in enumerate(parts) if token.is_mark][:_MOST_CUTS], len(parts)]
    return [
        (parts[begin].start, parts[end - 1].end, begin > 0, parts[end:])
        for begin in begins
        for end in ends
        if begin < end and end - begin <= _LONGEST_EXPRESSION and _may_end(parts, end)
    ]


def _may_end(parts: list[Token], end: int) -> bool:
    return end >= len(parts) or (
        parts[end].text in ".!,;\n(\u2014"
        and not (end + 1 < len(parts) and parts[end].end == parts[end + 1].start and parts[end].text in ".,(")
    )


def _is_equal(expected: str, said: str) -> bool:
    """Whether math-verify takes two short expressions for equal; False where it is not installed.

    It may take very long over towers of powers and factorials, so what is not short and plain never reaches it.
    """
    if not _OPERATORS.search(unlatex(expected)):
        return False  # a name such as H2O
    if not (_PLAIN_MATHS.fullmatch(unlatex(expected)) and _PLAIN_MATHS.fullmatch(unlatex(said))):
        return False
    if _PAIR.fullmatch(canonical(expected)) or _PAIR.fullmatch(canonical(said)):
        return False  # a range, not a difference
    if any(text.count("^") > 2 or _LONG_POWER.search(text) for text in (expected, said)):
        return False
    if (found := _math_verify()) is None:
        return False
    parse, verify = found
    gold, target = (parse(f"${text}$", parsing_timeout=None) for text in (_latex(expected), _latex(said)))
    return bool(gold and target and verify(gold, target, timeout_seconds=None))


@cache
def _math_verify() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """math-verify's `parse` and `verify`; None where it is not installed, which is looked up once."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return None
    # What reaches it is short: its clock, which works in the main thread alone, is off, and it warns of that each time.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse, verify


def _latex(text: str) -> str:
    return _ROOT_SIGN.sub(r"\\sqrt{\1}", unlatex(text)).replace("\u03c0", "\\pi ").replace("*", " \\cdot ")
