"""Engines: what answers the server's questions, many at once, and stops when nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from opengrit.boxes import Size
from opengrit.errors import ImageError
from opengrit.frames import Unit
from opengrit.ground import GROUND_ID, Answer, read_answer
from opengrit.prompts import Strategy, user_text
from opengrit.rollout import frame_for
from opengrit.samplers import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.samplers.endpoint import Sight
from opengrit.types import Finish

if TYPE_CHECKING:
    from opengrit.ground import Grounder
    from opengrit.samplers.decoding import Wrote
    from opengrit.samplers.transformers import TransformersSampler

_log = logging.getLogger(__name__)

_ADMITTED_AT_ONCE = 8  # prompts read between two tokens of the rows that are being written
_LONGEST_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about one picture (upright, RGB), how it is put, and how long its asker waits.

    `cut_before` are strings that end the text and are left out of it, as OpenAI's `stop` asks; the stop strings of
    `settings` end the text and stay in it.
    """

    image: Image.Image
    question: str
    settings: SamplingSettings
    strategy: str = Strategy.GROUNDED.value
    deadline_seconds: float = 120.0
    cut_before: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """Width x height of the picture as given."""
        return self.image.width * self.image.height

    @property
    def drawn_with(self) -> SamplingSettings:
        """The settings, with every string that ends the text among their stop strings."""
        return replace(self.settings, stop=tuple(dict.fromkeys((*self.settings.stop, *self.cut_before))))


class NoAnswer(Exception):
    """A question that is not answered; the kinds below say why."""


class Busy(NoAnswer):
    """The queue is full; `retry_after_seconds` (1 or more) is when it is worth trying again."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"the queue is full; try again in {retry_after_seconds} s")


class Closing(NoAnswer):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; ask another one, or try again later")


class TooLate(NoAnswer):
    """The answer was not finished by the deadline."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        super().__init__(
            f"an answer takes at most {deadline_seconds:g} s here, this one was not finished; "
            "ask for fewer tokens, or try again when fewer people ask"
        )


class Unanswerable(NoAnswer):
    """The question cannot be put to the model: its picture does not suit it, its text holds a picture token."""


class EngineFailed(NoAnswer):
    """The model, or the server behind it, failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much an engine has to do: questions that wait, and questions being answered."""

    queued: int
    live: int


class Engine(Protocol):
    """Answers questions about pictures."""

    @property
    def name(self) -> str:
        """The model's name, as a client asks for it."""
        ...

    @property
    def frame(self) -> str:
        """The frame its boxes are written in: a model type, or "pixels", "thousand" or "unit"."""
        ...

    def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        """The text as it is written, piece by piece, then the answer; the pieces together are the answer's text.

        Closing the iterator stops the work. Raises a kind of NoAnswer.
        """
        ...

    def seen_size(self, picture_size: Size) -> Size | None:
        """The size in which the model will see a picture, or None where only the answer tells."""
        ...

    def load(self) -> Load:
        """What it has to do now."""
        ...

    async def start(self) -> None:
        """Make ready to answer."""
        ...

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more questions, give those being answered some time, then stop."""
        ...


async def answered(engine: Engine, ask: Ask) -> Answer:
    """The answer, when it is whole. Raises a kind of NoAnswer."""
    async with aclosing(engine.stream(ask)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise EngineFailed("the engine ended without an answer")


class StopHolder:
    """Lets text through, but for what may be the beginning of a string that ends it and is left out."""

    def __init__(self, cut_before: Sequence[str]) -> None:
        self._stops = tuple(cut_before)
        self._held = ""
        self.ended = False

    def let_through(self, text: str) -> str:
        """The part of all text so far, not let through before, that is no part of a stop string."""
        if not self._stops:
            return text
        if self.ended:
            return ""
        held = self._held + text
        cut = cut_text(held, self._stops)
        self.ended = len(cut) < len(held)
        kept = 0 if self.ended else max(self._overlap(cut, stop) for stop in self._stops)
        self._held = cut[len(cut) - kept :]
        return cut[: len(cut) - kept]

    def rest(self) -> str:
        """What is still held back when the text is over: it was no stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many last characters of the text begin the stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def cut_text(text: str, cut_before: Sequence[str]) -> str:
    """The text up to the first of the strings."""
    return text[: min((text.index(stop) for stop in cut_before if stop in text), default=len(text))]


def without_stop(sampled: Sampled, cut_before: Sequence[str]) -> Sampled:
    """The completion with its text cut before the first of the strings."""
    text = cut_text(sampled.completion.text, cut_before)
    if text == sampled.completion.text:
        return sampled
    return replace(sampled, completion=replace(sampled.completion, text=text, finish=Finish.STOP))


class Running(Protocol):
    """A batch of completions being written; `samplers.decoding.Decoding` is one. One thread drives it."""

    @property
    def live(self) -> int: ...

    def admit(
        self,
        questions: Sequence[Asked],
        settings: Sequence[SamplingSettings],
        *,
        samples_per_question: int = 1,
    ) -> list[int | Unsampled]: ...

    def step(self) -> list[Wrote]: ...

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
        self._sight = _local_sight(grounder) if running is None else _unforeseen
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[_Job] = deque()
        self._live: dict[int, _Job] = {}  # by handle; changed by the worker alone
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
        return _seen(self._sight, picture_size)

    def load(self) -> Load:
        return Load(queued=len(self._waiting), live=len(self._live))

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
            yield read_answer(
                without_stop(sampled, ask.cut_before),
                question=ask.question,
                picture_size=Size(*ask.image.size),
                strategy=ask.strategy,
                frame_name=self._frame,
                seconds=seconds,
                model=self._name,
            )
        finally:
            self._leave(job)

    def _enter(self, job: _Job) -> None:
        with self._changed:
            if self._closing or self._worker is None:
                raise Closing
            crowded = self._pixels_held and self._pixels_held + job.ask.pixels > self._max_pixels_held
            # What fits into the batch does not wait: the worker takes it before the next token.
            room = self._max_queue + max(0, self._max_batch - len(self._live))
            if crowded or len(self._waiting) >= room:
                turns = (len(self._waiting) + len(self._live)) / self._max_batch
                raise Busy(_retry_after_seconds(turns, self._mean_seconds))
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
        async with _by(job.ask, began):
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
                _log.exception("%s failed; %d questions are lost", self._name, len(arrived) + len(self._live))
                failure = EngineFailed(f"the model failed ({type(error).__name__}); try again")
                lost = {id(job): job for job in (*arrived, *self._live.values())}
                _tell([(job, failure) for job in lost.values()])
                self._live.clear()
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
            return [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]

    def _step(self, running: Running, arrived: list[_Job]) -> None:
        for handle in [handle for handle, job in self._live.items() if not job.wanted]:
            del self._live[handle]
            running.drop(handle)
        told: list[tuple[_Job, str | Sampled | NoAnswer]] = []
        arrived = [job for job in arrived if job.wanted]
        if arrived:
            admitted = running.admit([job.asked for job in arrived], [job.ask.drawn_with for job in arrived])
            for job, place in zip(arrived, admitted, strict=True):
                if isinstance(place, Unsampled):
                    told.append((job, Unanswerable(place.reason)))
                else:
                    self._live[place] = job
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
    from opengrit.samplers.transformers import TransformersSampler

    if not isinstance(grounder.sampler, TransformersSampler):
        raise TypeError(
            f"a local engine drives a TransformersSampler, got {type(grounder.sampler).__name__}; use RemoteEngine"
        )
    return grounder.sampler


def _decoding(grounder: Grounder) -> Running:
    from opengrit.samplers.decoding import Decoding

    return Decoding(_own_sampler(grounder))


def _local_sight(grounder: Grounder) -> Callable[[Size], Size | None]:
    """How the model in memory sees pictures; families that write shares of the picture see any size alike."""
    unit = frame_for(grounder.frame, Size(1, 1)).unit
    if unit is not Unit.PIXELS:
        return _as_given
    processor = _own_sampler(grounder).speaker.processor.image_processor
    return Sight(
        unit,
        tile=processor.patch_size * processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    ).seen_size


def _seen(sight: Callable[[Size], Size | None], picture_size: Size) -> Size | None:
    try:
        return sight(picture_size)
    except ImageError:  # too slim for the model, which will say so
        return None


def _as_given(picture_size: Size) -> Size | None:
    return picture_size


def _unforeseen(picture_size: Size) -> Size | None:
    return None


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
    size the model sees a picture.
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None = None,
        max_queue: int = 64,
        max_live: int = 8,
        sight: Callable[[Size], Size | None] = _unforeseen,
    ) -> None:
        self._grounder = grounder
        self._name = name or grounder.model
        self._max_queue = max_queue
        self._max_live = max_live
        self._sight = sight
        self._slots = asyncio.Semaphore(max_live)
        self._threads = ThreadPoolExecutor(max_live, thread_name_prefix=f"engine {self._name}")
        self._entered = 0
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
        return _seen(self._sight, picture_size)

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
        if self._entered >= self._max_queue + self._max_live:
            turns = self._entered / self._max_live
            raise Busy(_retry_after_seconds(turns, self._mean_seconds))
        began = time.perf_counter()
        heard = _Overheard()
        self._entered += 1
        try:
            async with _by(ask, began):
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
                async with _by(ask, began):
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
        yield read_answer(
            without_stop(said, ask.cut_before),
            question=ask.question,
            picture_size=Size(*ask.image.size),
            strategy=ask.strategy,
            frame_name=self.frame,
            seconds=seconds,
            model=self._name,
        )

    def _sample(self, asked: Asked, settings: SamplingSettings, heard: _Overheard) -> Sampled | Unsampled:
        sampler = self._grounder.sampler
        [[said]] = sampler.sample([asked], samples_per_question=1, settings=settings, listener=heard)
        return said


@asynccontextmanager
async def _by(ask: Ask, began: float) -> AsyncGenerator[None, None]:
    """The asker's deadline. Raises TooLate."""
    try:
        async with asyncio.timeout(began + ask.deadline_seconds - time.perf_counter()):
            yield
    except TimeoutError:
        raise TooLate(ask.deadline_seconds) from None


def _retry_after_seconds(turns: float, mean_seconds: float) -> int:
    """When half of the turns before one's own are likely over, in whole seconds."""
    return max(1, min(_LONGEST_RETRY_SECONDS, math.ceil(turns * mean_seconds / 2)))
