"""A judge's reply, read: strict about the number, tolerant about its wrapping."""

from __future__ import annotations

import json
import re
from typing import Any

from opengrit.core.escaping import shortened
from opengrit.core.types import Unjudged

_FENCED = re.compile(r"```[ \t]*(?:json)?[ \t]*\n(?P<inside>.*?)\n?```", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
# The form in the paper's figure 8, {score: <score>}, is not JSON; single quotes are as harmless.
_BARE = re.compile(r"\{\s*'?score'?\s*:\s*(?P<score>[^\s{}]+?)\s*\}", re.IGNORECASE)
_LONGEST = 20_000  # characters; a reply is a few dozen


def read_score(text: str) -> float | Unjudged:
    """The score in [0, 1] that a reply gives, or why it gives none.

    The whole reply is one JSON object with the key "score", alone or in a Markdown fence; reasoning that ends with
    </think> may come before it, and it may have other keys. An object inside prose is not read: it may be a
    quotation of the answer that is judged. The score is a number, or a string that is one ("0.5"). A boolean, a
    percentage, a fraction, two scores, and a number out of [0, 1] are no score, and nothing is clipped.
    """
    if len(text) > _LONGEST:
        return Unjudged("the judge's reply is too long")
    said = text.rpartition("</think>")[2].strip()
    if not said:
        return Unjudged("the judge's reply is empty")
    fenced = _FENCED.fullmatch(said)
    inside = fenced["inside"].strip() if fenced else said
    try:
        value = json.loads(inside, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        bare = _BARE.fullmatch(inside)
        if bare is None:
            return Unjudged(f"the judge's reply is not JSON: {_short(said)}")
        value = _Pairs([("score", bare["score"].strip("'\""))])
    if not isinstance(value, _Pairs):
        return Unjudged(f"the judge's reply is not a JSON object: {_short(said)}")
    scores = [given for key, given in value if key.strip().lower() == "score"]
    if len(scores) != 1:
        return Unjudged(f"the judge's reply has {len(scores)} scores and not one: {_short(said)}")
    return _in_range(scores[0])


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that a key given twice is seen."""


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
