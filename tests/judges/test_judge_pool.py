from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from opengrit.core.types import Unjudged, Verdict
from opengrit.judges import Case, RuleJudge
from opengrit.judges.pool import JudgePool, Proceed, Skip, decide

CASES = [Case("q", expected="2", given="2"), Case("q", expected="2", given="3")]
YES, OUT = Verdict(True, 1.0), Unjudged("outage")


class HeldJudge:
    """Judges by rule once it is let go, and keeps the deadlines it was given."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Event()
        self.deadlines: list[float | None] = []

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        self.deadlines.append(deadline_seconds)
        self.entered.release()
        assert self.go.wait(60)
        return RuleJudge().judge_many(cases)


def test_judging_goes_on_beside_other_work() -> None:
    judge = HeldJudge()
    pool = JudgePool(judge)
    pending = pool.start(CASES, deadline_seconds=60.0)
    assert judge.entered.acquire(timeout=60)
    assert not pending.done()  # other work happens here
    judge.go.set()
    assert [opinion.correct for opinion in pending.result() if isinstance(opinion, Verdict)] == [True, False]
    assert pending.done()
    pool.close()


def test_a_judge_that_ignores_the_deadline_leaves_every_case_unjudged() -> None:
    judge = HeldJudge()
    pool = JudgePool(judge, grace_seconds=0.1)
    pending = pool.start(CASES, deadline_seconds=0.1)
    assert pending.result() == [Unjudged("not judged within the deadline of 0.1 s")] * 2
    judge.go.set()
    pool.close()


def test_the_deadline_runs_from_the_start_also_for_a_batch_that_waits_for_its_turn() -> None:
    judge = HeldJudge()
    now = {"seconds": 0.0}
    pool = JudgePool(judge, batches_at_once=1, clock=lambda: now["seconds"])
    first = pool.start(CASES, deadline_seconds=100.0)
    assert judge.entered.acquire(timeout=60)
    second = pool.start(CASES, deadline_seconds=50.0)
    third = pool.start(CASES, deadline_seconds=30.0)
    now["seconds"] = 40.0
    judge.go.set()
    assert len(first.result()) == 2
    assert isinstance(second.result()[0], Verdict)
    assert third.result() == [Unjudged("not judged within the deadline of 30 s")] * 2
    assert judge.deadlines == [100.0, 10.0]
    pool.close()


@pytest.mark.parametrize(
    ("opinions", "share", "learned"),
    [
        ([YES] * 4, 1.0, True),
        ([YES] * 3 + [OUT], 1.0, False),
        ([YES] * 2 + [OUT] * 2, 0.5, True),
        ([YES] * 1 + [OUT] * 2, 0.5, False),
        ([OUT] * 4, 0.0, True),
        ([OUT] * 4, 0.01, False),
        ([], 1.0, True),  # nothing was asked: every row was truncated, or has a box for an answer
        ([YES] * 7 + [OUT] * 3, 0.7, True),  # 0.7 x 10 is not quite 7 in floating point
    ],
)
def test_a_step_is_learned_from_when_enough_of_it_is_judged(
    opinions: list[Verdict | Unjudged], share: float, learned: bool
) -> None:
    decision = decide(opinions, min_judged_share=share)
    assert isinstance(decision, Proceed if learned else Skip)
    assert decision.judged == opinions.count(YES)
    assert decision.unjudged == opinions.count(OUT)


def test_a_skipped_step_says_why() -> None:
    decision = decide([YES, OUT, OUT, Unjudged("refused")], min_judged_share=0.5)
    assert isinstance(decision, Skip)
    assert decision.reason == "1 of 4 answers are judged, at least 50% must be; most often: outage"


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match="min_judged_share"):
        decide([YES], min_judged_share=1.5)
