"""Whether an answer is right: the `Judge` protocol, and functions that put transcripts before a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from opengrit.core.types import Example, Transcript, Unjudged, Verdict
from opengrit.judges.answers import is_box_answer


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to be judged. The question is the user's alone, without the instruction that the model was given."""

    question: str
    expected: str = field(kw_only=True)
    given: str = field(kw_only=True)
    also_accepted: tuple[str, ...] = field(
        default=(), kw_only=True
    )  # `judge_cases` puts each before the judge

    @property
    def singly(self) -> tuple[Case, ...]:
        """A case for each accepted answer, the expected one first: what a judge, which compares two answers, is asked."""
        accepted = (self.expected, *self.also_accepted)
        return tuple(Case(self.question, expected=answer, given=self.given) for answer in accepted)


class Judge(Protocol):
    """Anything that compares a given answer with the expected one. It returns `Unjudged` and does not raise."""

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """A verdict with a score in [0, 1], or why there is none."""
        ...


class BatchJudge(Judge, Protocol):
    """A judge that takes many cases at once, as every judge of this package does."""

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order. A case that is not judged within the deadline is `Unjudged`."""
        ...


def judge_transcript(judge: Judge, example: Example, transcript: Transcript) -> Verdict | Unjudged:
    """The verdict on a transcript's answer.

    A missing or blank answer is wrong and is not shown to the judge: the model failed, and not the judge. A row
    whose expected answer is a box is unjudged by every judge (grounding IoU measures it). The judge sees the row's
    question alone, without the format instruction that the model was given.
    """
    known = verdict_or_case(example, transcript)
    if not isinstance(known, Case):
        return known
    opinions = [judge.judge(one.question, expected=one.expected, given=one.given) for one in known.singly]
    return _best(opinions)


def judge_transcripts(
    judge: BatchJudge,
    rows: Sequence[tuple[Example, Transcript]],
    *,
    deadline_seconds: float | None = None,
) -> list[Verdict | Unjudged]:
    """The verdicts on many answers, in order; each as `judge_transcript` gives it."""
    known = [verdict_or_case(example, transcript) for example, transcript in rows]
    cases = [one for one in known if isinstance(one, Case)]
    judged = iter(judge_cases(judge, cases, deadline_seconds=deadline_seconds) if cases else ())
    return [next(judged) if isinstance(one, Case) else one for one in known]


def judge_cases(
    judge: BatchJudge, cases: Sequence[Case], *, deadline_seconds: float | None = None
) -> list[Verdict | Unjudged]:
    """One opinion a case, in order; of a case with several accepted answers the best of the opinions on each.

    An answer that is like one of them is right. Where none is known to be like it and some could not be compared, the
    case is unjudged: it is not known to be wrong.
    """
    if not any(case.also_accepted for case in cases):
        return judge.judge_many(cases, deadline_seconds=deadline_seconds)
    each = [one for case in cases for one in case.singly]
    opinions = iter(judge.judge_many(each, deadline_seconds=deadline_seconds))
    return [_best([next(opinions) for _ in case.singly]) for case in cases]


def _best(opinions: Sequence[Verdict | Unjudged]) -> Verdict | Unjudged:
    verdicts = [opinion for opinion in opinions if isinstance(opinion, Verdict)]
    best = max(verdicts, key=lambda verdict: (verdict.correct, verdict.score), default=None)
    unjudged = next((opinion for opinion in opinions if isinstance(opinion, Unjudged)), None)
    if best is None or (unjudged is not None and not best.correct):
        return unjudged or opinions[0]
    return best


def verdict_or_case(example: Example, transcript: Transcript) -> Verdict | Unjudged | Case:
    """The opinion that needs no judge, else the case to put before one."""
    if is_box_answer(example.answer):
        return Unjudged("the expected answer is a box; grounding IoU measures it")
    if transcript.answer is None or not transcript.answer.strip():
        return Verdict(correct=False, score=0.0, judge="no answer")
    return Case(
        example.question,
        expected=example.answer,
        given=transcript.answer,
        also_accepted=example.also_accepted,
    )
