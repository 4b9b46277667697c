"""A judge of your own: a function of the question, the expected answer and the given one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opengrit.core.errors import JudgeError
from opengrit.core.escaping import shortened
from opengrit.core.plugins import RAISED, OwnFunction, Reference, is_asynchronous, keywords_of, load
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges.answers import is_box_answer
from opengrit.judges.protocol import Case


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """Asks a function, which returns a `Verdict`, True or False, or `Unjudged`; it may be a coroutine function.

    Coroutines of a batch are awaited together. What is not judged within the deadline is `Unjudged`. Raises JudgeError,
    with the case and the line of its file, where the function raises or returns something else.
    """

    function: OwnFunction
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, reference: Reference, keywords: Mapping[str, Any]) -> OwnJudge:
        """The judge that a recipe's reference names. Raises RecipeError where there is none, or it takes other keywords."""
        function = load(reference)
        return cls(function, keywords_of(function, keywords, arguments=1, named=("expected", "given")))

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """The function's opinion; unjudged where the expected answer is a box, which words cannot decide."""
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order."""
        late = Unjudged(f"not judged within the deadline of {deadline_seconds or 0:g} s")
        if is_asynchronous(self.function.call):
            from opengrit.clients.event_loop import shared_loop  # brings a client that others do not need

            return shared_loop().run(self._await_all(cases, deadline_seconds, late))
        began = time.monotonic()
        found: list[Verdict | Unjudged] = []
        for case in cases:
            is_late = deadline_seconds is not None and time.monotonic() - began > deadline_seconds
            found.append(late if is_late else self._judge(case))
        return found

    def _judge(self, case: Case) -> Verdict | Unjudged:
        if is_box_answer(case.expected):
            return _BOX
        try:
            answer = self._call(case)
        except RAISED as error:  # code of others raises what it likes
            raise self._raised(case, error) from error
        return self._opinion(case, answer)

    def _call(self, case: Case) -> Any:
        return self.function.call(case.question, expected=case.expected, given=case.given, **self.keywords)

    async def _await_all(
        self, cases: Sequence[Case], seconds: float | None, late: Unjudged
    ) -> list[Verdict | Unjudged]:
        tasks = [asyncio.create_task(self._await(case)) for case in cases]
        if not tasks:
            return []
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        return [late if task.cancelled() or not task.done() else task.result() for task in tasks]

    async def _await(self, case: Case) -> Verdict | Unjudged:
        if is_box_answer(case.expected):
            return _BOX
        try:
            answer = await self._call(case)
        except RAISED as error:  # as above
            raise self._raised(case, error) from error
        return self._opinion(case, answer)

    def _opinion(self, case: Case, answer: Any) -> Verdict | Unjudged:
        if isinstance(answer, Verdict | Unjudged):
            return answer
        if isinstance(answer, bool):
            return Verdict(correct=answer, score=float(answer), judge=self.function.name)
        raise self._broken(case, f"returned {shortened(repr(answer))}", self.function.place)

    def _raised(self, case: Case, error: BaseException) -> JudgeError:
        what = f"raised {type(error).__name__} ({' '.join(str(error).split())})"
        return self._broken(case, what, self.function.raised_at(error))

    def _broken(self, case: Case, what: str, place: str) -> JudgeError:
        return JudgeError(
            f"a judge returns a Verdict, True or False, or Unjudged, {self.function.file.reference} {what} for "
            f"{shortened(case.given)!r} where {shortened(case.expected)!r} is expected of {shortened(case.question)!r}; fix {place}"
        )


_BOX = Unjudged("the expected answer is a box; grounding IoU measures it")
