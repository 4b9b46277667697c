"""Every answer of the evaluation runs as data for the page's list: filtered, sorted and paged there, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from opengrit.core.types import Unjudged
from opengrit.evaluation.metrics import grounding_iou, kind_of_answer
from opengrit.reports.outcomes import Outcome
from opengrit.reports.selected_examples import AnsweredExample, Reply

LONGEST_TEXT = 1_500  # characters of one answer's text in the list; the examples have theirs whole
TEXT_BUDGET = 8_000_000  # characters of all of them; a page of that size still opens at once
MOST_LISTED = 10_000  # examples in the list: with their texts a page of at most some 20 MB
_LONGEST_FIELD = 400  # characters of a question or an answer
_CUT = " [..]"


@dataclass(frozen=True, slots=True)
class AnswerList:
    """The content of a JSON script element, safe in HTML, and what it leaves out."""

    data: Markup
    num_examples: int  # in the list, of `num_answered`
    num_answered: int
    num_cut: int  # texts shortened to LONGEST_TEXT
    num_left_out: int  # texts left out because the page would be too large
    outcomes: tuple[str, ...]  # that occur, in order
    datasets: tuple[str, ...]
    runs: tuple[str, ...]


def answer_list(
    examples: Sequence[AnsweredExample],
    shown: Sequence[AnsweredExample],
    *,
    prefix: str,
    budget: int = TEXT_BUDGET,
) -> AnswerList:
    """The examples with each run's reply; `shown` ones, that the page has with pictures, name their place there.

    Of more than 10,000 the shown ones are in the list, and others evenly spaced over all.
    """
    num_answered = len(examples)
    examples = _listed(examples, shown)
    places = {id(answered): f"{prefix}-e{i}" for i, answered in enumerate(shown)}
    runs = tuple(dict.fromkeys(reply.run for answered in examples for reply in answered.replies))
    texts = _Texts(budget)
    rows = [
        {
            "d": answered.example.dataset,
            "i": answered.example.id,
            "q": _cut(answered.example.question, _LONGEST_FIELD),
            "x": _cut(" or ".join(answered.example.accepted), _LONGEST_FIELD),
            "k": kind_of_answer(answered.example),
            "e": places.get(id(answered)),
            "t": [_reply(reply, runs, texts) for reply in answered.replies],
        }
        for answered in examples
    ]
    kinds = {reply.outcome for answered in examples for reply in answered.replies}
    return AnswerList(
        data=_in_script({"runs": list(runs), "rows": rows}),
        num_examples=len(examples),
        num_answered=num_answered,
        num_cut=texts.num_cut,
        num_left_out=texts.num_left_out,
        outcomes=tuple(outcome.value for outcome in Outcome if outcome in kinds),
        datasets=tuple(sorted({answered.example.dataset for answered in examples})),
        runs=runs,
    )


def _listed(
    examples: Sequence[AnsweredExample], shown: Sequence[AnsweredExample]
) -> Sequence[AnsweredExample]:
    if len(examples) <= MOST_LISTED:
        return examples
    wanted = {id(answered) for answered in shown}
    room = MOST_LISTED - len(wanted)
    wanted |= {id(examples[i * len(examples) // room]) for i in range(room)}
    return [answered for answered in examples if id(answered) in wanted]


class _Texts:
    """Hands out texts until the budget is used, and counts what is cut and what is left out."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self.num_cut = self.num_left_out = 0

    def __call__(self, text: str) -> str | None:
        shown = _cut(text, LONGEST_TEXT)
        if len(shown) > self._left:
            self.num_left_out += 1
            return None
        self._left -= len(shown)
        self.num_cut += shown != text
        return shown


def _reply(reply: Reply, runs: Sequence[str], texts: _Texts) -> dict[str, Any]:
    record = reply.record
    iou = grounding_iou(record)
    why = record.verdict.reason if isinstance(record.verdict, Unjudged) else None
    return {
        "r": runs.index(reply.run),
        "a": None if record.transcript.answer is None else _cut(record.transcript.answer, _LONGEST_FIELD),
        "c": reply.outcome.value,
        "u": None if iou is None else round(iou, 3),
        "b": len(record.transcript.boxes),
        "w": record.failure or why,
        "s": texts(record.transcript.text),
    }


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


def _in_script(value: Any) -> Markup:
    """JSON that cannot end its script element nor begin a comment in it, whatever it holds; ASCII."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
