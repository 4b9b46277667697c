"""A language model behind an OpenAI-compatible endpoint as the judge, with the paper's prompt."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from opengrit.clients import Endpoint, EndpointSettings, LoopThread, NoReply, Reply, Spend, estimate_tokens
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges.breaker import Breaker, State
from opengrit.judges.model_judge import (
    CostEstimate,
    ReplySettings,
    Threshold,
    prompt_text,
    prompt_version,
    score_key,
    score_of,
)
from opengrit.judges.protocol import Case
from opengrit.judges.reply import READING

REPLY_TOKENS = 12  # of {"score": 0.5}, for the estimate before asking
_BETWEEN_LOOKS_SECONDS = 1.0  # while another batch tries a judge that was down
_CUT_OFF = ("content_filter", "length")
_UNKNOWN_PARAMETER = (400, 422, 501)  # what a server answers that does not know response_format


class EndpointJudge:
    """Asks a model for a score between 0 and 1. Every failure is `Unjudged`; nothing is raised.

    Requests run on a thread of its own, at most `settings.concurrency` at once. Close it when done. It may be used
    by several threads.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        reply_settings: ReplySettings | None = None,
        threshold: Threshold | None = None,
        breaker: Breaker | None = None,
        connect: Callable[[EndpointSettings], Endpoint] = Endpoint,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises RecipeError where the key in the environment cannot be a key."""
        self._settings = settings
        self._reply_settings = reply_settings or ReplySettings()
        self._threshold = threshold or Threshold()
        self._breaker = breaker
        self._has_schema: bool | None = (
            None  # whether the endpoint knows response_format; None: not asked yet
        )
        self._clock, self._sleep = clock, sleep
        self._endpoint = connect(settings)
        self._loop = LoopThread("opengrit-judge")

    @property
    def name(self) -> str:
        """How the judge is called in its verdicts."""
        return f"endpoint:{self._settings.model}"

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the score depends on besides the case. The key, limits and prices are not part of it."""
        return {
            "kind": "endpoint",
            "host": self._settings.host,
            "model": self._settings.model,
            "prompt": prompt_version(),
            "reading": READING,
            "params": self._reply_settings.params(),
        }

    @property
    def spend(self) -> Spend:
        """What was asked so far."""
        return self._endpoint.spend

    @property
    def cost(self) -> float | None:
        """What was spent so far, in the currency of the prices; None where prices are not known."""
        spend = self.spend
        return self._settings.cost(
            prompt_tokens=spend.prompt_tokens, completion_tokens=spend.completion_tokens
        )

    def estimate(self, cases: Sequence[Case]) -> CostEstimate:
        """What these cases are going to cost, at four characters a token and one request each."""
        prompt = sum(estimate_tokens(_messages(case)) for case in cases)
        completion = REPLY_TOKENS * len(cases)
        cost = self._settings.cost(prompt_tokens=prompt, completion_tokens=completion)
        return CostEstimate(len(cases), prompt, completion, cost)

    def verdict(self, score: float) -> Verdict:
        """The verdict for a score in [0, 1]."""
        return self._threshold.verdict(score, judge=self.name)

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """The model's verdict on one answer, or why there is none."""
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order, asked concurrently.

        What is not judged when the deadline passes is `Unjudged`; what is judged by then is kept. While the breaker
        is open, a batch with a deadline waits and tries again, and one without gives up.
        """
        return self._loop.run(self._judge_all(list(cases), deadline_seconds))

    def close(self) -> None:
        """Closes the connections and ends the thread."""
        self._loop.run(self._endpoint.close())
        self._loop.close()

    async def _judge_all(self, cases: list[Case], deadline_seconds: float | None) -> list[Verdict | Unjudged]:
        found: dict[int, Verdict | Unjudged] = {}
        ends_at = math.inf if deadline_seconds is None else self._clock() + deadline_seconds
        late = Unjudged("the judge is not asked for now")
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._judge_into(found, cases, ends_at)
        except TimeoutError:
            late = Unjudged(f"not judged within the deadline of {deadline_seconds:g} s")
        if self._breaker is not None and self._breaker.state is not State.CLOSED:
            late = Unjudged(f"the judge is down: {self._breaker.reason}")
        return [found.get(i, late) for i in range(len(cases))]

    async def _judge_into(
        self, found: dict[int, Verdict | Unjudged], cases: list[Case], ends_at: float
    ) -> None:
        """Fills in opinions until each case has one, or a judge that is down leaves the rest without."""
        left = deque(range(len(cases)))
        while left:
            if self._breaker is not None and self._breaker.state is not State.CLOSED:
                if not await self._try_again(found, cases, left, ends_at):
                    return
                continue
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._settings.concurrency, len(left))):
                    workers.create_task(self._work(found, cases, left))

    async def _work(self, found: dict[int, Verdict | Unjudged], cases: list[Case], left: deque[int]) -> None:
        while left and (self._breaker is None or self._breaker.allows()):
            number = left.popleft()
            found[number], _ = await self._ask(cases[number])

    async def _try_again(
        self, found: dict[int, Verdict | Unjudged], cases: list[Case], left: deque[int], ends_at: float
    ) -> bool:
        """Waits for a judge that is down and asks it one case; False where there is no time for that."""
        assert self._breaker is not None
        wait = self._breaker.seconds_to_wait
        if not wait and not self._breaker.allows():
            wait = _BETWEEN_LOOKS_SECONDS
        if wait:
            if ends_at == math.inf or self._clock() + wait >= ends_at:
                return False
            await self._sleep(wait)
            return True
        opinion, answered = await self._ask(cases[left[0]])
        if answered:  # else the case stays, to be asked again with the next try
            found[left.popleft()] = opinion
        return answered or ends_at < math.inf

    async def _ask(self, case: Case) -> tuple[Verdict | Unjudged, bool]:
        """The opinion on a case, and whether the server answered at all; the breaker learns of it."""
        try:
            reply = await self._reply(case)
        except asyncio.CancelledError:
            if self._breaker is not None:
                self._breaker.withdrawn()
            raise
        if isinstance(reply, NoReply) and not reply.declined:
            if self._breaker is not None:
                self._breaker.failed(reply.reason)
            return Unjudged(reply.reason), False
        if self._breaker is not None:
            self._breaker.succeeded()
        if isinstance(reply, NoReply):  # a content filter refused this answer, say: no outage
            return Unjudged(reply.reason), True
        if reply.finish_reason in _CUT_OFF:  # what is there may end in the middle of a quotation
            return Unjudged(f"the judge's reply was cut off ({reply.finish_reason})"), True
        score = score_of(reply.text, case)
        return (score if isinstance(score, Unjudged) else self.verdict(score)), True

    async def _reply(self, case: Case) -> Reply | NoReply:
        """The reply to a case, held to the form of a score where the endpoint can do that."""
        params = self._reply_settings.params()
        if self._has_schema is False:
            return await self._endpoint.chat(_messages(case), **params)
        reply = await self._endpoint.chat(_messages(case), response_format=_form(score_key(case)), **params)
        if isinstance(reply, Reply):
            self._has_schema = True
        elif self._has_schema is None and reply.status in _UNKNOWN_PARAMETER:
            reply = await self._endpoint.chat(_messages(case), **params)
            if isinstance(reply, Reply):
                self._has_schema = False
        return reply


def _form(key: str) -> dict[str, Any]:
    """The response_format of an object with one number under `key`."""
    schema = {
        "type": "object",
        "properties": {key: {"type": "number"}},
        "required": [key],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "mark", "strict": True, "schema": schema}}


def _messages(case: Case) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt_text(case)}]
