"""A judge's reply, read where the judge itself speaks: one JSON object alone, which no quotation of the answer can be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from opengrit.core.escaping import shortened
from opengrit.core.types import Unjudged

READING = 2  # raised when a reply is read another way: a stored score of an older reading is not trusted
SCORE = "score"

_FENCED = re.compile(r"```[ \t]*(?:json)?[ \t]*\n(?P<inside>.*?)\n?```", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
# The form in the paper's figure 8, {score: <score>}, is not JSON; single quotes are as harmless.
_BARE = re.compile(r"\{\s*'?(?P<key>score\w*+)'?\s*:\s*(?P<score>[^\s{}]+?)\s*\}", re.IGNORECASE)
_LONGEST = 20_000  # characters; a reply is a few dozen
_THINKS, _HAS_THOUGHT = "<think>", "</think>"

_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
_CLAIM = re.compile(r"score[^a-z0-9]{0,20}?([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?)", re.ASCII)


def own_key(texts: Sequence[str]) -> str:
    """What the reply about these texts calls its score: "score", or a name of its own where a text could say that.

    The name is "score_" and eight hexadecimal digits of the SHA-256 of the texts: the same in every run, and nothing
    that a text can hold of itself. So a reply that quotes the texts, alone or after </think>, is not taken for the judge's.
    """
    plain = [_plain(text) for text in texts]
    if not any(SCORE in text or "</think" in text for text in plain):
        return SCORE
    return f"{SCORE}_{hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:8]}"


def scores_in(texts: Sequence[str]) -> frozenset[float]:
    """The numbers that the texts call a score."""
    return frozenset(
        float(number) for text in texts for number in _CLAIM.findall(" ".join(_plain(text).split()))
    )


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text.casefold())


def read_score(text: str, *, key: str = SCORE, claimed: Collection[float] = ()) -> float | Unjudged:
    """The score in [0, 1] that a reply gives, or why it gives none.

    The whole reply is one JSON object with the key `key`, alone or in one Markdown fence, and it may have other keys, none
    twice. One block of reasoning may come before it where the reply begins with <think>. An object inside prose, or after
    prose, is not read: it may be a quotation of the answer that is judged. The score is a number, or a string that is one
    ("0.5"). A boolean, a percentage, a fraction, two scores, and a number out of [0, 1] are no score, and nothing is clipped.

    Where `key` is another one than "score", an object with "score" counts if its number is not among those `claimed` in
    the texts that are judged: a judge that did not take the name, but does not quote either.
    """
    if len(text) > _LONGEST:
        return Unjudged("the judge's reply is too long")
    said, ends = text.strip(), 0
    if said.startswith(_THINKS):
        ends = said.count(_HAS_THOUGHT)
        said = said.rpartition(_HAS_THOUGHT)[2].strip() if ends else ""
    if not said:
        return Unjudged("the judge's reply is empty")
    fenced = _FENCED.fullmatch(said)
    pairs = _pairs(fenced["inside"].strip() if fenced else said)
    if pairs is None:
        return Unjudged(f"the judge's reply is not one JSON object alone: {_short(said)}")
    names = [name.strip().lower() for name, _ in pairs]
    if len(set(names)) < len(names):
        return Unjudged(f"the judge's reply says a key twice: {_short(said)}")
    scores = [(name, given) for name, (_, given) in zip(names, pairs, strict=True) if name in (key, SCORE)]
    if len(scores) != 1:
        return Unjudged(f"the judge's reply has {len(scores)} scores and not one: {_short(said)}")
    name, given = scores[0]
    score = _in_range(given)
    if isinstance(score, Unjudged):
        return score
    if name != key and score in claimed:
        return Unjudged(f"the judge's reply may be a quotation of what it judges: {_short(said)}")
    if ends > 1 and (name != key or key == SCORE):
        return Unjudged(f"the judge's reasoning ends {ends} times: {_short(text)}")
    return score


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that a key given twice is seen."""


def _pairs(said: str) -> _Pairs | None:
    """The keys and values of an object that is all that is said; None where it is not."""
    try:
        value = json.loads(said, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        bare = _BARE.fullmatch(said)
        return None if bare is None else _Pairs([(bare["key"], bare["score"].strip("'\""))])
    return value if isinstance(value, _Pairs) else None


def _in_range(given: Any) -> float | Unjudged:
    if isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
        given = float(given)
    if type(given) not in (int, float):
        return Unjudged(f"the judge's score is not a number: {_short(repr(given))}")
    if not 0 <= given <= 1:  # also true of NaN
        return Unjudged(f"the judge's score is out of [0, 1]: {_short(str(given))}")
    return float(given)


def _short(text: str) -> str:
    return shortened(" ".join(text.split()))
