"""Judging in the background: a batch is started, other work continues, and the opinions are fetched by a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from opengrit.core.types import Unjudged, Verdict
from opengrit.judges.protocol import BatchJudge, Case, judge_cases


class PendingVerdicts:
    """Opinions that are on their way."""

    def __init__(
        self,
        future: Future[list[Verdict | Unjudged]],
        *,
        num_cases: int,
        deadline_seconds: float,
        timeout: Callable[[], float],
    ) -> None:
        self._future, self._num_cases = future, num_cases
        self._deadline_seconds, self._timeout = deadline_seconds, timeout

    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self._future.done()

    def result(self) -> list[Verdict | Unjudged]:
        """One opinion a case, in order, no later than a moment after the deadline.

        A judge that keeps to the deadline hands over what it has by then; where one does not, every case is
        `Unjudged`.
        """
        try:
            return self._future.result(timeout=self._timeout())
        except TimeoutError:
            late = Unjudged(f"not judged within the deadline of {self._deadline_seconds:g} s")
            return [late] * self._num_cases


class JudgePool:
    """Judges batches on threads, so that sampling, reference log-probs and judging overlap. Close it when done."""

    def __init__(
        self,
        judge: BatchJudge,
        *,
        batches_at_once: int = 2,
        grace_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`grace_seconds` are given to a judge to hand over what it has when the deadline passes."""
        self._judge, self._grace_seconds, self._clock = judge, grace_seconds, clock
        self._threads = ThreadPoolExecutor(batches_at_once, thread_name_prefix="opengrit-judging")

    def start(self, cases: Sequence[Case], *, deadline_seconds: float) -> PendingVerdicts:
        """Starts judging; the deadline runs from here, so that a batch that waits for its turn gets no longer."""
        batch = tuple(cases)
        ends_at = self._clock() + deadline_seconds
        future = self._threads.submit(self._judge_batch, batch, ends_at, deadline_seconds)
        return PendingVerdicts(
            future,
            num_cases=len(batch),
            deadline_seconds=deadline_seconds,
            timeout=lambda: max(0.0, ends_at - self._clock()) + self._grace_seconds,
        )

    def _judge_batch(
        self, batch: tuple[Case, ...], ends_at: float, deadline_seconds: float
    ) -> list[Verdict | Unjudged]:
        left = ends_at - self._clock()
        if left <= 0:
            return [Unjudged(f"not judged within the deadline of {deadline_seconds:g} s")] * len(batch)
        return judge_cases(self._judge, batch, deadline_seconds=left)

    def close(self) -> None:
        """Drops batches that have not begun, and waits for those that have."""
        self._threads.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Proceed:
    """Enough of a step is judged to learn from it."""

    judged: int
    unjudged: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Too little of a step is judged: learning from it would be learning from noise."""

    judged: int
    unjudged: int
    reason: str


def decide(opinions: Sequence[Verdict | Unjudged], *, min_judged_share: float) -> Proceed | Skip:
    """Whether a step is learned from: where at least `min_judged_share` (0 to 1) of its opinions are verdicts.

    `opinions` are those asked of a judge. Truncated rows and rows whose expected answer is a box are never put
    before one and do not belong here. A step in which nothing was asked proceeds.
    """
    if not 0 <= min_judged_share <= 1:
        raise ValueError(f"min_judged_share is in [0, 1], got {min_judged_share}")
    reasons = [opinion.reason for opinion in opinions if isinstance(opinion, Unjudged)]
    judged = len(opinions) - len(reasons)
    if judged >= min_judged_share * len(opinions) - 1e-9:
        return Proceed(judged, len(reasons))
    most = max(dict.fromkeys(reasons), key=reasons.count)
    return Skip(
        judged,
        len(reasons),
        f"{judged} of {len(opinions)} answers are judged, at least {min_judged_share:.0%} must be; most often: {most}",
    )
