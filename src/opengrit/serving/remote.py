"""The engine of a model behind an OpenAI-compatible server: questions take turns and are written in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING

from opengrit.inference.answer import Answer
from opengrit.inference.listeners import QueueListener
from opengrit.sampling import Sampled, Unsampled
from opengrit.serving.engine import (
    Ask,
    Closing,
    EngineFailed,
    Event,
    Load,
    QueueingEngine,
    SeenSizeOf,
    Unanswerable,
    within_deadline,
)

if TYPE_CHECKING:
    from opengrit.inference.grounder import Grounder


class RemoteEngine(QueueingEngine):
    """A model behind an OpenAI-compatible server (vLLM), which batches by itself; here questions only take turns.

    `max_live` threads use the grounder's sampler at the same time, which the endpoint sampler allows. `seen_size_of` gives
    the size in which the model sees a picture. Beyond `max_live`, `max_queue` and `max_pixels_held` `stream` raises Busy.
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None = None,
        max_queue: int = 64,
        max_live: int = 8,
        max_pixels_held: int = 300_000_000,
        seen_size_of: SeenSizeOf = lambda _: None,
    ) -> None:
        super().__init__(
            grounder,
            name=name,
            max_queue=max_queue,
            max_live=max_live,
            max_pixels_held=max_pixels_held,
            seen_size_of=seen_size_of,
        )
        self._sampler = grounder.sampler
        self._slots = asyncio.Semaphore(max_live)
        self._threads = ThreadPoolExecutor(max_live, thread_name_prefix=f"engine {self.name}")
        self._entered = 0
        self._live: set[QueueListener[Sampled | Exception]] = set()
        self._closing = False

    def load(self) -> Load:
        return Load(queued=self._entered - len(self._live), live=len(self._live))

    async def start(self) -> None:
        """Nothing to do: the other server is asked when a question comes."""

    async def close(self, grace_seconds: float = 0.0) -> None:
        self._closing = True
        until = time.perf_counter() + grace_seconds
        while self._live and time.perf_counter() < until:
            await asyncio.sleep(0.05)
        for listener in self._live:
            listener.stop()
        await asyncio.to_thread(self._threads.shutdown)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        if self._closing:
            raise Closing
        self._admit(ask, num_asked=self._entered)
        began = time.perf_counter()
        events: asyncio.Queue[Event] = asyncio.Queue()
        listener = QueueListener[Sampled | Exception].in_loop(events)
        self._entered += 1
        try:
            async with within_deadline(ask, began):
                await self._slots.acquire()
            self._live.add(listener)
            try:
                self._threads.submit(self._write, ask, listener)
                async with aclosing(self._answer(ask, events, began)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                listener.stop()
                self._live.discard(listener)
                self._slots.release()
        finally:
            self._entered -= 1
            self._pixels_held -= ask.pixels

    def _write(self, ask: Ask, listener: QueueListener[Sampled | Exception]) -> None:
        try:
            [[sampled]] = self._sampler.sample(
                [self._asked(ask)],
                samples_per_question=1,
                settings=ask.sampling_settings,
                listener=listener,
            )
            if isinstance(sampled, Unsampled) and sampled.status is not None:
                raise Unanswerable(sampled.reason, sampled.status)
            if isinstance(sampled, Unsampled):
                raise EngineFailed(f"the model's server gave no answer: {sampled.reason}")
            listener.put(sampled)
        except Exception as error:  # raised where the events are read
            listener.put(error)
