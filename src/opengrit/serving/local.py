"""The engine of a model in this process: questions join the running batch as they come, and leave it when given up."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opengrit.core.boxes import Size
from opengrit.grounding.frames import Unit, frame_for
from opengrit.grounding.prompts import user_text
from opengrit.inference.grounder import GROUND_ID, Answer
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.endpoint import ResizeRule
from opengrit.serving.engine import (
    Ask,
    Busy,
    Closing,
    EngineFailed,
    Load,
    NoAnswer,
    Sees,
    StopHolder,
    Unanswerable,
    answer_to,
    foreseen,
    retry_after_seconds,
    unforeseen,
    within_deadline,
)

if TYPE_CHECKING:
    from opengrit.inference.grounder import Grounder
    from opengrit.sampling.continuous_batch import RowUpdate
    from opengrit.sampling.transformers_engine import TransformersSampler

_log = logging.getLogger(__name__)

_ADMITTED_AT_ONCE = 8  # prompts read between two tokens of the rows that are being written


class Running(Protocol):
    """A batch of completions being written; `samplers.decoding.ContinuousBatch` is one. One thread drives it."""

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
    """A question on its way through the engine. `events` belongs to the loop of whoever asked."""

    ask: Ask
    asked: Asked
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[str | Sampled | NoAnswer] = field(default_factory=asyncio.Queue)
    wanted: bool = True


class LocalEngine:
    """A model in this process, driven by one thread: questions join the running batch as they come.

    At most `max_batch` questions are answered together and at most `max_queue` wait; the pictures of all of them have
    at most `max_pixels_held` pixels together (one picture alone may have more). Beyond that `stream` raises Busy.
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None = None,
        max_queue: int = 64,
        max_batch: int = 32,
        max_pixels_held: int = 300_000_000,
        running: Callable[[], Running] | None = None,
    ) -> None:
        self._name = name or grounder.model
        self._frame = grounder.frame
        self._make_running = running or (lambda: _decoding(grounder))
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._max_pixels_held = max_pixels_held
        self._sight = _local_sight(grounder) if running is None else unforeseen
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[_Job] = deque()
        self._live: dict[int, _Job] = {}  # by handle; changed by the worker alone
        self._admitting = 0  # taken from those that wait, and not yet among the live
        self._pixels_held = 0
        self._closing = False
        self._abandoned = False
        self._mean_seconds = 1.0
        self._worker: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def frame(self) -> str:
        return self._frame

    def seen_size(self, picture_size: Size) -> Size | None:
        return foreseen(self._sight, picture_size)

    def load(self) -> Load:
        with self._changed:
            return Load(queued=len(self._waiting), live=self._in_batch)

    @property
    def _in_batch(self) -> int:
        """Questions that have their place in the batch, those whose prompt is being read included."""
        return len(self._live) + self._admitting

    async def start(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=f"engine {self._name}", daemon=True)
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
        text = user_text(ask.strategy, ask.question, family=self._frame)
        job = _Job(ask, Asked(GROUND_ID, ask.image, text), asyncio.get_running_loop())
        self._enter(job)
        holder = StopHolder(ask.cut_before)
        try:
            while True:
                match await self._next_event(job, began):
                    case str(piece):
                        shown = holder.let_through(piece)
                        if shown:
                            yield shown
                    case Sampled() as sampled:
                        break
                    case NoAnswer() as failure:
                        raise failure
            if rest := holder.rest():
                yield rest
            seconds = time.perf_counter() - began
            self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
            yield answer_to(ask, sampled, frame=self._frame, seconds=seconds, model=self._name)
        finally:
            self._leave(job)

    def _enter(self, job: _Job) -> None:
        with self._changed:
            if self._closing or self._worker is None:
                raise Closing
            crowded = self._pixels_held and self._pixels_held + job.ask.pixels > self._max_pixels_held
            # What fits into the batch does not wait: the worker takes it before the next token.
            room = self._max_queue + max(0, self._max_batch - self._in_batch)
            if crowded or len(self._waiting) >= room:
                turns = (len(self._waiting) + self._in_batch) / self._max_batch
                raise Busy(retry_after_seconds(turns, self._mean_seconds))
            self._pixels_held += job.ask.pixels
            self._waiting.append(job)
            self._changed.notify_all()

    def _leave(self, job: _Job) -> None:
        with self._changed:
            job.wanted = False
            self._pixels_held -= job.ask.pixels
            if job in self._waiting:
                self._waiting.remove(job)

    @staticmethod
    async def _next_event(job: _Job, began: float) -> str | Sampled | NoAnswer:
        if not job.events.empty():
            return job.events.get_nowait()
        async with within_deadline(job.ask, began):
            return await job.events.get()

    # -- the worker's side, in its thread -------------------------------------------------------------------------

    def _work(self) -> None:
        running: Running | None = None
        while (arrived := self._take()) is not None:
            try:
                running = running or self._make_running()
                self._step(running, arrived)
            # Whatever the model raises must reach those who wait for it; they would wait for ever otherwise.
            except Exception as error:
                lost = {id(job): job for job in (*arrived, *self._live.values())}
                _log.exception("%s failed; %d questions are lost", self._name, len(lost))
                with self._changed:
                    self._live.clear()
                    self._admitting = 0
                failure = EngineFailed(f"the model failed ({type(error).__name__}); try again")
                _tell([(job, failure) for job in lost.values()])
                running = None
        with self._changed:
            left = [*self._waiting, *self._live.values()]
            self._waiting.clear()
        self._live.clear()
        _tell([(job, Closing()) for job in left])

    def _take(self) -> list[_Job] | None:
        """The jobs that join the batch now; None when the worker is to end. Waits while there is nothing to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._live or self._closing)
            if self._abandoned or (self._closing and not self._waiting and not self._live):
                return None
            room = min(_ADMITTED_AT_ONCE, self._max_batch - len(self._live))
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._admitting = len(taken)
            return taken

    def _step(self, running: Running, arrived: list[_Job]) -> None:
        for handle in [handle for handle, job in self._live.items() if not job.wanted]:
            del self._live[handle]
            running.drop(handle)
        told: list[tuple[_Job, str | Sampled | NoAnswer]] = []
        placed: dict[int, _Job] = {}
        arrived = [job for job in arrived if job.wanted]
        if arrived:
            admitted = running.admit([job.asked for job in arrived], [job.ask.drawn_with for job in arrived])
            for job, place in zip(arrived, admitted, strict=True):
                if isinstance(place, Unsampled):
                    told.append((job, Unanswerable(place.reason)))
                else:
                    placed[place] = job
        with self._changed:
            self._live |= placed
            self._admitting = 0
        if self._live:
            for wrote in running.step():
                job = self._live[wrote.handle]
                if wrote.text:
                    told.append((job, wrote.text))
                if wrote.done is not None:
                    told.append((job, wrote.done))
                    del self._live[wrote.handle]
        _tell(told)


def _own_sampler(grounder: Grounder) -> TransformersSampler:
    from opengrit.sampling.transformers_engine import TransformersSampler

    if not isinstance(grounder.sampler, TransformersSampler):
        raise TypeError(
            f"a local engine drives a TransformersSampler, got {type(grounder.sampler).__name__}; use RemoteEngine"
        )
    return grounder.sampler


def _decoding(grounder: Grounder) -> Running:
    from opengrit.sampling.continuous_batch import ContinuousBatch

    return ContinuousBatch(_own_sampler(grounder))


def _local_sight(grounder: Grounder) -> Sees:
    """How the model in memory sees pictures; families that write shares of the picture see any size alike."""
    unit = frame_for(grounder.frame, Size(1, 1)).unit
    if unit is not Unit.PIXELS:
        return _as_given
    processor = _own_sampler(grounder).vlm.processor.image_processor
    return ResizeRule(
        unit,
        tile=processor.patch_size * processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    ).seen_size


def _as_given(picture_size: Size) -> Size | None:
    return picture_size


def _tell(told: Sequence[tuple[_Job, str | Sampled | NoAnswer]]) -> None:
    """Hand every job its events, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, str | Sampled | NoAnswer]]] = {}
    for job, event in told:
        by_loop.setdefault(job.loop, []).append((job, event))
    for loop, events in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, events)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            for job, _ in events:
                job.wanted = False


def _deliver(events: Sequence[tuple[_Job, str | Sampled | NoAnswer]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)
