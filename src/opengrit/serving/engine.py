"""Engines: they answer the server's questions, many at once, and stop a question that nobody waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError
from opengrit.core.types import Finish
from opengrit.grounding.prompts import Strategy, user_text
from opengrit.inference.answer import GROUND_ID, Answer, read_answer
from opengrit.sampling import Asked, Sampled, SamplingSettings

if TYPE_CHECKING:
    from opengrit.inference.grounder import Grounder

_LONGEST_RETRY_SECONDS = 60

# The size in which a model sees a picture of a size, or None where it is not known.
SeenSizeOf = Callable[[Size], Size | None]
# What happens to a question: a piece of its text, its completion, or the failure that ends it.
Event = str | Sampled | Exception


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about one picture (upright, RGB), how it is asked, and how long its asker waits.

    `cut_before` are strings that end the text and are left out of it, as OpenAI's `stop` asks; the stop strings of
    `settings` end the text and stay in it. `spent_seconds` of the deadline are over already, for opening the picture.
    """

    image: Image.Image
    question: str
    settings: SamplingSettings
    strategy: str = Strategy.GROUNDED.value
    system: str | None = None
    deadline_seconds: float = 120.0
    cut_before: tuple[str, ...] = ()
    spent_seconds: float = 0.0

    @property
    def pixels(self) -> int:
        """Width x height of the picture as given."""
        return self.image.width * self.image.height

    @property
    def sampling_settings(self) -> SamplingSettings:
        """The settings, with `cut_before` among their stop strings."""
        return replace(self.settings, stop=tuple(dict.fromkeys((*self.settings.stop, *self.cut_before))))


class NoAnswer(Exception):
    """A question gets no answer; the subclasses say why."""


class Busy(NoAnswer):
    """The queue is full; `retry_after_seconds` (1 or more) is when it is worth trying again."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"the queue is full; try again in {retry_after_seconds} s")


class Closing(NoAnswer):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; use another one, or try again later")


class TooLate(NoAnswer):
    """The answer was not finished by the deadline."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        super().__init__(
            f"an answer must finish within {deadline_seconds:g} s, this one did not; request fewer tokens, or try again "
            "when the server is less busy"
        )


class Unanswerable(NoAnswer):
    """The model cannot take the question: its picture is too slim, or its text holds a picture token.

    `status` is the HTTP status of a model's server that refused it: 400, 404, 413 or 422.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(reason)


class EngineFailed(NoAnswer):
    """The model, or the server behind it, failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """An engine's load: how many questions wait, and how many are being answered."""

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
        """The size in which the model will see a picture, or None where it is known only with the answer."""
        ...

    def load(self) -> Load:
        """The questions it has now."""
        ...

    async def start(self) -> None:
        """Make ready to answer."""
        ...

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more questions, give those being answered the grace time, then stop."""
        ...


async def answered(engine: Engine, ask: Ask) -> Answer:
    """The answer, when it is whole. Raises a kind of NoAnswer."""
    async with aclosing(engine.stream(ask)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise EngineFailed("the engine ended without an answer")


async def cancel_all(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks and wait for their end; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- what the engines have in common ------------------------------------------------------------------------------------


class QueueingEngine:
    """The base of the engines: admits a question or refuses it as Busy, and makes an answer of its events.

    At most `max_live` questions are answered together and at most `max_queue` wait; the pictures of all of them have
    at most `max_pixels_held` pixels together (one picture alone may have more).
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        name: str | None,
        max_queue: int,
        max_live: int,
        max_pixels_held: int,
        seen_size_of: SeenSizeOf,
    ) -> None:
        self.name = name or grounder.model
        self.frame = grounder.frame
        self._max_queue = max_queue
        self._max_live = max_live
        self._max_pixels_held = max_pixels_held
        self._seen_size_of = seen_size_of
        self._pixels_held = 0
        self._mean_seconds = 1.0

    def seen_size(self, picture_size: Size) -> Size | None:
        try:
            return self._seen_size_of(picture_size)
        except ImageError:  # too slim for the model, which will say so
            return None

    def _admit(self, ask: Ask, *, num_asked: int) -> None:
        """Hold the picture of one question more than `num_asked`. Raises Busy."""
        crowded = self._pixels_held and self._pixels_held + ask.pixels > self._max_pixels_held
        if crowded or num_asked >= self._max_queue + self._max_live:
            # When half of the turns before one's own are likely over.
            seconds = math.ceil(num_asked / self._max_live * self._mean_seconds / 2)
            raise Busy(max(1, min(_LONGEST_RETRY_SECONDS, seconds)))
        self._pixels_held += ask.pixels

    def _asked(self, ask: Ask) -> Asked:
        """The question as a sampler takes it."""
        text = user_text(ask.strategy, ask.question, family=self.frame)
        return Asked(GROUND_ID, ask.image, text, ask.system)

    async def _answer(
        self, ask: Ask, events: asyncio.Queue[Event], began: float
    ) -> AsyncGenerator[str | Answer, None]:
        """The text as its events come, and the answer. Raises TooLate, and the failure among the events."""
        shown = StopFilter(ask.cut_before)
        while isinstance(event := await _next_event(ask, events, began), str):
            if piece := shown.push(event):
                yield piece
        if isinstance(event, Exception):
            raise event
        if rest := shown.flush():
            yield rest
        seconds = time.perf_counter() - began
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        yield read_answer(
            without_stop(event, ask.cut_before),
            question=ask.question,
            picture_size=Size(*ask.image.size),
            strategy=ask.strategy,
            system=ask.system,
            frame_name=self.frame,
            seconds=seconds,
            model=self.name,
        )


async def _next_event(ask: Ask, events: asyncio.Queue[Event], began: float) -> Event:
    if not events.empty():
        return events.get_nowait()
    async with within_deadline(ask, began):
        return await events.get()


@asynccontextmanager
async def within_deadline(ask: Ask, began: float) -> AsyncGenerator[None, None]:
    """The asker's deadline. Raises TooLate."""
    try:
        async with asyncio.timeout(began + ask.deadline_seconds - ask.spent_seconds - time.perf_counter()):
            yield
    except TimeoutError:
        raise TooLate(ask.deadline_seconds) from None


class StopFilter:
    """Passes text on, up to the first stop string; what may begin one is held back."""

    def __init__(self, cut_before: Sequence[str]) -> None:
        self._stops = tuple(cut_before)
        self._held = ""
        self.ended = False

    def push(self, text: str) -> str:
        """The part of all text so far, not passed on before, that is no part of a stop string."""
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

    def flush(self) -> str:
        """What is held back when the text is over: it was no stop string."""
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
