"""Whether an answer is right: the `Judge` protocol, and one function that puts a transcript before a judge."""

from __future__ import annotations

from typing import Protocol

from opengrit.answers import is_box_answer
from opengrit.judge.rule import RuleJudge
from opengrit.types import Example, Transcript, Unjudged, Verdict

__all__ = ["Judge", "RuleJudge", "judge_transcript"]


class Judge(Protocol):
    """Anything that compares a given answer with the expected one. It returns `Unjudged` and does not raise."""

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """A verdict with a score in [0, 1], or why there is none."""
        ...


def judge_transcript(judge: Judge, example: Example, transcript: Transcript) -> Verdict | Unjudged:
    """The verdict on a transcript's answer.

    A missing or blank answer is wrong and is not shown to the judge: the model failed, and not the judge. A row
    whose expected answer is a box is unjudged by every judge (grounding IoU measures it). The judge sees the row's
    question alone, without the format instruction that the model was given.
    """
    if is_box_answer(example.answer):
        return Unjudged("the expected answer is a box; grounding IoU measures it")
    if transcript.answer is None or not transcript.answer.strip():
        return Verdict(correct=False, score=0.0, judge="no answer")
    return judge.judge(example.question, expected=example.answer, given=transcript.answer)
