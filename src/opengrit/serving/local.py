"""The engine of a model in this process: questions join the running batch as they come, and leave it when dropped."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from opengrit.core.boxes import Size
from opengrit.grounding.frames import Unit, frame_for
from opengrit.inference.answer import Answer
from opengrit.sampling import Asked, SamplingSettings, Unsampled
from opengrit.sampling.endpoint import ResizeRule
from opengrit.serving.engine import (
    Ask,
    Closing,
    EngineFailed,
    Event,
    Load,
    QueueingEngine,
    SeenSizeOf,
    Unanswerable,
)

if TYPE_CHECKING:
    from opengrit.inference.grounder import Grounder
    from opengrit.sampling.continuous_batch import RowUpdate
    from opengrit.sampling.transformers_engine import TransformersSampler

_log = logging.getLogger(__name__)

_ADMITTED_AT_ONCE = 8  # prompts read between two tokens of the rows that are being written


class RunningBatch(Protocol):
    """A batch of completions being written, driven by one thread: `sampling.continuous_batch.ContinuousBatch`."""

    @property
    def live(self) -> int: ...

    def admit(
        self,
        questions: Sequence[Asked],
        settings: Sequence[SamplingSettings],
        *,
        samples_per_question: int = 1,
    ) -> list[int | Unsampled]: ...

    def step(self) -> list[RowUpdate]: ...

    def drop(self, handle: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    """A question in the engine. `events` belongs to the event loop of whoever asked."""

    ask: Ask
    asked: Asked
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    wanted: bool = True


class LocalEngine(QueueingEngine):
    """A model in this process, driven by one thread: questions join the running batch as they come.

    `max_queue`, `max_batch` and `max_pixels_held` bound what it takes on; beyond that `stream` raises Busy.
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None = None,
        max_queue: int = 64,
        max_batch: int = 32,
        max_pixels_held: int = 300_000_000,
        make_batch: Callable[[], RunningBatch] | None = None,
    ) -> None:
        super().__init__(
            grounder,
            name=name,
            max_queue=max_queue,
            max_live=max_batch,
            max_pixels_held=max_pixels_held,
            seen_size_of=_seen_size_of(grounder) if make_batch is None else lambda _: None,
        )
        self._grounder = grounder
        self._make_batch = make_batch or partial(_continuous_batch, grounder)
        self._changed = threading.Condition()  # guards what the engine holds, and everything below
        self._waiting: deque[_Job] = deque()
        self._live: dict[int, _Job] = {}  # by handle; changed by the worker alone
        self._admitting = 0  # taken from those that wait, and not yet among the live
        self._closing = False
        self._abandoned = False
        self._worker: threading.Thread | None = None

    def load(self) -> Load:
        with self._changed:
            # A question whose prompt is being read has its place in the batch.
            return Load(queued=len(self._waiting), live=len(self._live) + self._admitting)

    async def start(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=f"engine {self.name}", daemon=True)
            self._worker.start()

    async def close(self, grace_seconds: float = 0.0) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._worker is None:
            return
        await asyncio.to_thread(self._worker.join, grace_seconds)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        await asyncio.to_thread(self._worker.join)
        self._worker = None

    # -- the asker's side, in its event loop ----------------------------------------------------------------------

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        began = time.perf_counter()
        job = _Job(ask, self._asked(ask), asyncio.get_running_loop())
        self._grounder.tell_what_it_knows([Size(*ask.image.size)], name=self.name)
        self._enter(job)
        try:
            async with aclosing(self._answer(ask, job.events, began)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._leave(job)

    def _enter(self, job: _Job) -> None:
        with self._changed:
            if self._closing or self._worker is None:
                raise Closing
            self._admit(job.ask, num_asked=len(self._waiting) + len(self._live) + self._admitting)
            self._waiting.append(job)
            self._changed.notify_all()

    def _leave(self, job: _Job) -> None:
        with self._changed:
            job.wanted = False
            self._pixels_held -= job.ask.pixels
            if job in self._waiting:
                self._waiting.remove(job)

    # -- the worker's side, in its thread -------------------------------------------------------------------------

    def _work(self) -> None:
        batch: RunningBatch | None = None
        while (arrived := self._take()) is not None:
            try:
                batch = batch or self._make_batch()
                self._step(batch, arrived)
            # Whatever the model raises must reach those who wait for it; they would wait without end otherwise.
            except Exception as error:
                lost = {id(job): job for job in (*arrived, *self._live.values())}
                _log.exception("%s failed; %d questions have no answer", self.name, len(lost))
                with self._changed:
                    self._live.clear()
                    self._admitting = 0
                failure = EngineFailed(f"the model failed ({type(error).__name__}); try again")
                _send([(job, failure) for job in lost.values()])
                batch = None
        with self._changed:
            left = [*self._waiting, *self._live.values()]
            self._waiting.clear()
        self._live.clear()
        _send([(job, Closing()) for job in left])

    def _take(self) -> list[_Job] | None:
        """The jobs that join the batch now; None when the worker is to end. Waits while there is nothing to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._live or self._closing)
            if self._abandoned or (self._closing and not self._waiting and not self._live):
                return None
            room = min(_ADMITTED_AT_ONCE, self._max_live - len(self._live))
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._admitting = len(taken)
            return taken

    def _step(self, batch: RunningBatch, arrived: list[_Job]) -> None:
        for handle in [handle for handle, job in self._live.items() if not job.wanted]:
            del self._live[handle]
            batch.drop(handle)
        events: list[tuple[_Job, Event]] = []
        placed: dict[int, _Job] = {}
        arrived = [job for job in arrived if job.wanted]
        if arrived:
            settings = [job.ask.sampling_settings for job in arrived]
            admitted = batch.admit([job.asked for job in arrived], settings)
            for job, place in zip(arrived, admitted, strict=True):
                if isinstance(place, Unsampled):
                    events.append((job, Unanswerable(place.reason)))
                else:
                    placed[place] = job
        with self._changed:
            self._live |= placed
            self._admitting = 0
        if self._live:
            for wrote in batch.step():
                job = self._live[wrote.handle]
                if wrote.text:
                    events.append((job, wrote.text))
                if wrote.done is not None:
                    events.append((job, wrote.done))
                    del self._live[wrote.handle]
        _send(events)


def _own_sampler(grounder: Grounder) -> TransformersSampler:
    from opengrit.sampling.transformers_engine import TransformersSampler

    if not isinstance(grounder.sampler, TransformersSampler):
        raise TypeError(
            f"a local engine drives a TransformersSampler, got {type(grounder.sampler).__name__}; use RemoteEngine"
        )
    return grounder.sampler


def _continuous_batch(grounder: Grounder) -> RunningBatch:
    from opengrit.sampling.continuous_batch import ContinuousBatch

    return ContinuousBatch(_own_sampler(grounder))


def _seen_size_of(grounder: Grounder) -> SeenSizeOf:
    """The sizes in which the model in memory sees pictures; families that write shares of a picture see any size alike."""
    unit = frame_for(grounder.frame, Size(1, 1)).unit
    if unit is not Unit.PIXELS:
        return lambda picture_size: picture_size
    processor = _own_sampler(grounder).vlm.processor.image_processor
    return ResizeRule(
        unit,
        tile=processor.patch_size * processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    ).seen_size


def _send(events: Sequence[tuple[_Job, Event]]) -> None:
    """Put every event into its job's queue, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Event]]] = {}
    for job, event in events:
        by_loop.setdefault(job.loop, []).append((job, event))
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, of_loop)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            for job, _ in of_loop:
                job.wanted = False


def _deliver(events: Sequence[tuple[_Job, Event]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)
