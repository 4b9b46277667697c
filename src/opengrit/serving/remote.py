"""The engine of a model behind an OpenAI-compatible server: questions take turns and are written in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from opengrit.core.boxes import Size
from opengrit.grounding.prompts import user_text
from opengrit.inference.grounder import GROUND_ID, Answer
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.serving.engine import (
    Ask,
    Busy,
    Closing,
    EngineFailed,
    Load,
    Sees,
    StopHolder,
    answer_to,
    foreseen,
    retry_after_seconds,
    unforeseen,
    within_deadline,
)

if TYPE_CHECKING:
    from opengrit.inference.grounder import Grounder


class _Overheard:
    """Carries a sampler's text, written in another thread, to the event loop of whoever asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[str] = asyncio.Queue()
        self.wanted = True

    def wrote(self, question: int, sample: int, text: str) -> None:
        try:
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, text)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            self.wanted = False

    def wants(self, question: int) -> bool:
        return self.wanted


class RemoteEngine:
    """A model behind an OpenAI-compatible server (vLLM), which batches by itself; here questions only take turns.

    The grounder's sampler must bear being used by `max_live` threads, as the endpoint sampler does. `sight` tells in which
    size the model sees a picture. At most `max_queue` questions wait; the pictures of all of them have at most
    `max_pixels_held` pixels together (one picture alone may have more). Beyond that `stream` raises Busy.
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None = None,
        max_queue: int = 64,
        max_live: int = 8,
        max_pixels_held: int = 300_000_000,
        sight: Sees = unforeseen,
    ) -> None:
        self._grounder = grounder
        self._name = name or grounder.model
        self._max_queue = max_queue
        self._max_live = max_live
        self._max_pixels_held = max_pixels_held
        self._sight = sight
        self._slots = asyncio.Semaphore(max_live)
        self._threads = ThreadPoolExecutor(max_live, thread_name_prefix=f"engine {self._name}")
        self._entered = 0
        self._pixels_held = 0
        self._live: set[_Overheard] = set()
        self._closing = False
        self._mean_seconds = 1.0

    @property
    def name(self) -> str:
        return self._name

    @property
    def frame(self) -> str:
        return self._grounder.frame

    def seen_size(self, picture_size: Size) -> Size | None:
        return foreseen(self._sight, picture_size)

    def load(self) -> Load:
        return Load(queued=self._entered - len(self._live), live=len(self._live))

    async def start(self) -> None:
        """Nothing to do: the other server is asked when a question comes."""

    async def close(self, grace_seconds: float = 0.0) -> None:
        self._closing = True
        until = time.perf_counter() + grace_seconds
        while self._live and time.perf_counter() < until:
            await asyncio.sleep(0.05)
        for heard in self._live:
            heard.wanted = False
        await asyncio.to_thread(self._threads.shutdown)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        if self._closing:
            raise Closing
        crowded = self._pixels_held and self._pixels_held + ask.pixels > self._max_pixels_held
        if crowded or self._entered >= self._max_queue + self._max_live:
            turns = self._entered / self._max_live
            raise Busy(retry_after_seconds(turns, self._mean_seconds))
        began = time.perf_counter()
        heard = _Overheard()
        self._entered += 1
        self._pixels_held += ask.pixels
        try:
            async with within_deadline(ask, began):
                await self._slots.acquire()
            self._live.add(heard)
            try:
                async for piece in self._write(ask, heard, began):
                    yield piece
            finally:
                heard.wanted = False
                self._live.discard(heard)
                self._slots.release()
        finally:
            self._entered -= 1
            self._pixels_held -= ask.pixels

    async def _write(self, ask: Ask, heard: _Overheard, began: float) -> AsyncGenerator[str | Answer, None]:
        text = user_text(ask.strategy, ask.question, family=self.frame)
        asked = Asked(GROUND_ID, ask.image, text)
        writing = asyncio.get_running_loop().run_in_executor(
            self._threads, partial(self._sample, asked, ask.drawn_with, heard)
        )
        over: list[asyncio.Future[Any]] = [writing]
        holder = StopHolder(ask.cut_before)
        while not (writing.done() and heard.pieces.empty()):
            coming = asyncio.ensure_future(heard.pieces.get())
            try:
                async with within_deadline(ask, began):
                    await asyncio.wait([coming, *over], return_when=asyncio.FIRST_COMPLETED)
                if coming.done() and (shown := holder.let_through(coming.result())):
                    yield shown
            finally:
                coming.cancel()
        said = await writing
        if isinstance(said, Unsampled):
            raise EngineFailed(f"the model's server gave no answer: {said.reason}")
        if rest := holder.rest():
            yield rest
        seconds = time.perf_counter() - began
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        yield answer_to(ask, said, frame=self.frame, seconds=seconds, model=self._name)

    def _sample(self, asked: Asked, settings: SamplingSettings, heard: _Overheard) -> Sampled | Unsampled:
        sampler = self._grounder.sampler
        [[said]] = sampler.sample([asked], samples_per_question=1, settings=settings, listener=heard)
        return said
