"""The judge that needs no model: answers compared by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opengrit.core.types import Unjudged, Verdict
from opengrit.judges.answers import is_box_answer, same_answer
from opengrit.judges.protocol import Case


@dataclass(frozen=True, slots=True)
class RuleJudge:
    """Compares short answers by `answers.same_answer`: instant, free, repeatable, blind to synonyms."""

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """A verdict of score 0 or 1; unjudged where the expected answer is a box, which words cannot decide."""
        if is_box_answer(expected):
            return Unjudged("the expected answer is a box; grounding IoU measures it")
        correct = same_answer(expected, given, question)
        return Verdict(correct=correct, score=float(correct), judge="rule")

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order; no deadline is near."""
        return [self.judge(case.question, expected=case.expected, given=case.given) for case in cases]
