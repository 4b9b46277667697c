"""The doctor on the judge: one trial question, and what a run's questions would come to."""

from __future__ import annotations

import os
from collections.abc import Iterator

from opengrit.core.errors import OpenGritError
from opengrit.core.types import Unjudged
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding
from opengrit.judges import Case
from opengrit.judges.cache import CachedJudge
from opengrit.judges.settings import JudgeSection, open_judge, own_judge

_AREA = Area.JUDGE
_TRIAL = Case("How many dogs are there?", expected="2", given="two")
_TIMEOUT_SECONDS = 30.0
_TRIES = 2
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


def examine_judge(context: Context) -> Iterator[Finding]:
    """Puts one right answer before the judge. The scores that runs share are neither read nor written."""
    section = context.recipe.judge
    if section.kind == "rule":
        yield _AREA.ok("judge", "the rule judge: needs no network and costs nothing")
        return
    if section.kind == "own":
        yield from _own(section)
        return
    if section.kind == "local" and context.quick:
        yield _AREA.skipped("judge", "--quick leaves out what needs a model")
        return
    far = section.kind == "endpoint" and not any(host in (section.url or "") for host in _LOCAL)
    if far and not os.environ.get(section.api_key_env):
        yield _AREA.warn(
            "judge's key",
            f"the variable {section.api_key_env} is not set, so no key is sent to {section.url}",
            f"export {section.api_key_env}=..., or name another variable under judge.api_key_env",
        )
    trial = section.model_copy(
        update={
            "cache": None,
            "fallback": "none",
            "max_tries": min(_TRIES, section.max_tries),
            "timeout_seconds": min(_TIMEOUT_SECONDS, section.timeout_seconds),
        }
    )
    try:
        with open_judge(trial) as judge:
            assert isinstance(judge, CachedJudge)
            opinion = judge.judge_many([_TRIAL], deadline_seconds=2 * _TIMEOUT_SECONDS)[0]
            spent, due = judge.cost, judge.estimate([_TRIAL])
    except OpenGritError as error:
        yield _AREA.error("judge", error)
        return
    who = f"the judge {section.model}" + (f" at {section.url}" if section.url else "")
    if isinstance(opinion, Unjudged):
        yield _AREA.fail(
            "judge",
            f"{who} gave no opinion on a trial question: {opinion.reason}",
            "start it, check judge.url, judge.model and its key; or set judge: rule",
        )
        return
    answers = context.recipe.train.completions_per_step
    tokens = (due.prompt_tokens + due.completion_tokens) * answers
    priced = (
        "" if due.cost is None else f", some {due.cost * answers * context.recipe.train.max_steps:.2f} a run"
    )
    trial_cost = "" if spent is None else f" (the trial cost {spent:.6f})"
    found = (
        f"{who} gives a right answer {opinion.score:g}{trial_cost}; a step puts up to {answers} answers before it, about "
        f"{tokens:,} tokens{priced}"
    )
    if not opinion.correct:
        yield _AREA.warn(
            "judge",
            f"{found}; but it marks {_TRIAL.given!r} wrong where {_TRIAL.expected!r} is expected, which is right",
            f"use a stronger judge, or lower judge.correct_from ({section.correct_from:g})",
        )
        return
    yield _AREA.ok("judge", found)


def _own(section: JudgeSection) -> Iterator[Finding]:
    try:
        opinion = own_judge(section).judge(_TRIAL.question, expected=_TRIAL.expected, given=_TRIAL.given)
    except OpenGritError as error:
        yield _AREA.error("judge", error)
        return
    found = (
        f"your {section.function} was asked once: {_TRIAL.given!r} where {_TRIAL.expected!r} is expected is "
    )
    said = opinion.reason if isinstance(opinion, Unjudged) else "right" if opinion.correct else "wrong"
    if isinstance(opinion, Unjudged) or not opinion.correct:
        yield _AREA.warn("judge", f"{found}{said} to it", "check what it accepts as right")
        return
    yield _AREA.ok("judge", found + said)
