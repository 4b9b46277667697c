"""One model behind the OpenAI protocol: retries, limits, deadlines and spend; a failure is a value, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import openai
import tenacity

from opengrit.clients.protocol import (
    EXPECTED,
    Failed,
    StreamedReply,
    estimate_tokens,
    explained,
    read,
    read_models,
    read_reply,
)
from opengrit.clients.rate_limit import TokenBucket
from opengrit.clients.settings import EndpointSettings, NoReply, Reply, Spend
from opengrit.core.errors import RecipeError
from opengrit.core.escaping import shortened

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.5  # before the second try; doubled before each further one
LONGEST_WAIT_SECONDS = 60.0  # of one wait, whatever Retry-After says
STREAM_TIMEOUTS = 10  # that a stream without a deadline may last
_LONGEST_REASON = 200  # characters
_LOOPBACK = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}  # reached without a proxy


class Endpoint:
    """One model behind the OpenAI protocol. It belongs to one event loop; close it there with `close`.

    The key is read from the environment when this is built, sent to the server, and shown nowhere. A machine's
    own proxy settings are honoured, except for addresses of the machine itself.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environ: Mapping[str, str] = os.environ,
        jitter: random.Random | None = None,
    ) -> None:
        """Raises RecipeError where the key in the environment cannot be a key."""
        self.settings = settings
        self._clock, self._sleep = clock, sleep
        # Its own generator, so that retries leave the run's random state alone.
        self._jitter = jitter or random.Random()
        self._key = environ.get(settings.api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise RecipeError(
                f"an API key is printable ASCII, the value of {settings.api_key_env} is not; set it again"
            )
        self._client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=self._key or "none",
            organization="",
            project="",
            max_retries=0,
            # No redirect is followed: the address that was named is the only one that sees a question.
            http_client=openai.DefaultAsyncHttpxClient(
                mounts=_LOOPBACK, timeout=None, follow_redirects=False
            ),
        )
        # Untyped: what a caller asks for goes in as it is.
        self._completions: Any = self._client.chat.completions
        # The client insists on a key; where there is none, the header is left out of each request.
        self._headers = {} if self._key else {"Authorization": openai.Omit()}
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._requests = self._bucket(settings.requests_per_minute)
        self._tokens = self._bucket(settings.tokens_per_minute)
        self._resume_at = -math.inf
        self._spend = Spend()

    def _bucket(self, per_minute: float | None) -> TokenBucket | None:
        return None if per_minute is None else TokenBucket(per_minute, clock=self._clock, sleep=self._sleep)

    @property
    def spend(self) -> Spend:
        """What was asked so far, failures included."""
        return self._spend

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def chat(self, messages: list[dict[str, Any]], **params: Any) -> Reply | NoReply:
        """The model's answer to a conversation, or why there is none; nothing but a cancellation is raised.

        `params` go into the request as they are (temperature, max_tokens, seed; what only some servers know, such
        as top_k, goes into extra_body). Time-outs, broken connections,
        status 408, 409, 425, 429 and 5xx, and replies that are not of the protocol are tried again; Retry-After is
        honoured up to 60 s and holds back the other requests too.
        """
        estimate = estimate_tokens(messages) + _completion_limit(params)

        async def once() -> Reply:
            async with self._completions.with_streaming_response.create(
                messages=messages,
                model=self.settings.model,
                extra_headers=self._headers,
                **params,
            ) as response:
                body = await read(response.iter_bytes())
            reply, counted = read_reply(body, messages)
            self._count(reply, counted=counted, reserved=estimate)
            return reply

        return await self._with_retries(self._request, estimate, once)

    async def models(self) -> tuple[str, ...] | NoReply:
        """The names of the models that the server offers, or why they are not known."""

        async def once() -> tuple[str, ...]:
            listing = self._client.models.with_streaming_response.list(extra_headers=self._headers)  # type: ignore[arg-type]
            async with listing as response:
                body = await read(response.iter_bytes())
            return read_models(body)

        return await self._with_retries(self._request, 0, once)

    async def stream(
        self, messages: list[dict[str, Any]], **params: Any
    ) -> AsyncIterator[str | Reply | NoReply]:
        """Pieces of the answer while it is written, then one `Reply` with the whole text, or one `NoReply`.

        A request that fails before its first piece is tried again as in `chat`; after that, it is a `NoReply`.
        Closing the iterator ends the request. Each piece comes within `timeout_seconds` of the one before, and
        all of them within `deadline_seconds`, or ten time-outs where there is no deadline.
        """
        estimate = estimate_tokens(messages) + _completion_limit(params)
        limit = self.settings.deadline_seconds or STREAM_TIMEOUTS * self.settings.timeout_seconds
        ends_at = asyncio.get_running_loop().time() + limit
        async with contextlib.AsyncExitStack() as open_now:
            started = await self._with_retries(self._open_stream, messages, params, estimate, open_now)
            if isinstance(started, NoReply):
                yield started
                return
            chunks, chunk = started
            written = StreamedReply()
            try:
                while chunk is not None:
                    if piece := written.add(chunk):
                        yield piece
                    chunk = await self._next_chunk(chunks, ends_at)
                reply, counted = written.reply(messages)
            except Failed as failure:
                self._add(failed=1)
                yield NoReply(self._shown(failure.reason), failure.declined, failure.status)
                return
            self._count(reply, counted=counted, reserved=estimate)
            yield reply

    async def _open_stream(
        self,
        messages: list[dict[str, Any]],
        params: dict[str, Any],
        estimate: int,
        open_now: contextlib.AsyncExitStack,
    ) -> tuple[AsyncIterator[Any], Any]:
        """The chunks of a stream and the first of them; the stream and its slot stay open in `open_now`."""
        async with contextlib.AsyncExitStack() as opening:
            await opening.enter_async_context(self._slots)
            await self._wait_for_limits(estimate)

            async def once() -> tuple[AsyncIterator[Any], Any]:
                stream = await self._completions.create(
                    messages=messages,
                    model=self.settings.model,
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_headers=self._headers,
                    **params,
                )
                opening.push_async_callback(stream.close)
                chunks = aiter(stream)
                try:
                    return chunks, await anext(chunks)
                except StopAsyncIteration:
                    raise Failed("the stream is empty or does not follow the protocol") from None

            opened = await self._sent(once)
            await open_now.enter_async_context(opening.pop_all())
            return opened

    async def _next_chunk(self, chunks: AsyncIterator[Any], ends_at: float) -> Any | None:
        left = ends_at - asyncio.get_running_loop().time()
        seconds = min(self.settings.timeout_seconds, left)
        try:
            async with asyncio.timeout(seconds):
                return await anext(chunks)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise Failed(
                "the stream did not end before its deadline" if seconds == left else "the stream stalled"
            ) from None
        except EXPECTED as error:
            raise explained(error) from error

    async def _with_retries(self, request: Callable[..., Awaitable[T]], *args: Any) -> T | NoReply:
        """The result of a request that is tried again while that can help."""
        settings = self.settings
        deadline = (
            math.inf if settings.deadline_seconds is None else self._clock() + settings.deadline_seconds
        )
        tries = tenacity.AsyncRetrying(
            sleep=self._sleep,
            wait=self._wait_seconds,
            stop=lambda state: (
                state.attempt_number >= settings.max_tries or self._clock() + state.upcoming_sleep >= deadline
            ),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failed) and error.again),
            reraise=True,
        )

        try:
            async with asyncio.timeout(settings.deadline_seconds):
                return await tries(request, *args)
        except TimeoutError:
            return NoReply(f"no reply within the deadline of {settings.deadline_seconds:g} s")
        except Failed as failure:
            return NoReply(self._shown(failure.reason), failure.declined, failure.status)

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Doubling waits, each a random half to the whole of its length, or what the server asks for."""
        failure = state.outcome.exception() if state.outcome is not None else None
        longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
        own = longest * self._jitter.uniform(0.5, 1.0)
        if isinstance(failure, Failed) and failure.after_seconds is not None:
            return max(own, min(LONGEST_WAIT_SECONDS, failure.after_seconds))
        return own

    async def _request(self, estimate: int, once: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            await self._wait_for_limits(estimate)
            return await self._sent(once)

    async def _wait_for_limits(self, estimate: int) -> None:
        while (pause := self._resume_at - self._clock()) > 0:
            await self._sleep(pause)
        if self._requests is not None:
            await self._requests.take(1)
        if self._tokens is not None and estimate:
            await self._tokens.take(estimate)

    async def _sent(self, once: Callable[[], Awaitable[T]]) -> T:
        """The result of one request within the time-out. Raises `Failed` and nothing else."""
        self._add(requests=1)
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await once()
        except TimeoutError:
            failure = Failed(f"no complete reply in {self.settings.timeout_seconds:g} s")
        except Failed as error:
            failure = error
        except EXPECTED as error:
            failure = explained(error)
        self._add(failed=1)
        if failure.after_seconds is not None:
            pause = min(LONGEST_WAIT_SECONDS, failure.after_seconds)
            self._resume_at = max(self._resume_at, self._clock() + pause)
        raise failure

    def _count(self, reply: Reply, *, counted: bool, reserved: int) -> None:
        self._add(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            estimated=int(not counted),
        )
        if self._tokens is not None:
            self._tokens.correct(reserved - reply.prompt_tokens - reply.completion_tokens)

    def _add(self, **counts: int) -> None:
        self._spend = replace(self._spend, **{k: getattr(self._spend, k) + n for k, n in counts.items()})

    def _shown(self, reason: str) -> str:
        """A reason on one short line, without the key: a server may repeat what it was sent."""
        text = reason.replace(self._key, "[key]") if self._key else reason
        text = " ".join(text.split())
        return shortened(text, _LONGEST_REASON)


def _completion_limit(params: Mapping[str, Any]) -> int:
    return int(params.get("max_completion_tokens") or params.get("max_tokens") or 0)
