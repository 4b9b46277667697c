"""Engines: what answers the server's questions, many at once, and stops when nobody waits any more."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError
from opengrit.core.types import Finish
from opengrit.grounding.prompts import Strategy
from opengrit.inference.grounder import Answer, read_answer
from opengrit.sampling import Sampled, SamplingSettings

_LONGEST_RETRY_SECONDS = 60

# The size in which a model sees a picture, or None where it is not known.
Sees = Callable[[Size], Size | None]


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


def answer_to(ask: Ask, sampled: Sampled, *, frame: str, seconds: float, model: str) -> Answer:
    """What the model wrote, read as the answer to what was asked."""
    return read_answer(
        without_stop(sampled, ask.cut_before),
        question=ask.question,
        picture_size=Size(*ask.image.size),
        strategy=ask.strategy,
        frame_name=frame,
        seconds=seconds,
        model=model,
    )


def foreseen(sight: Sees, picture_size: Size) -> Size | None:
    """The size in which the model will see a picture; None also where the picture is too slim for it."""
    try:
        return sight(picture_size)
    except ImageError:  # too slim for the model, which will say so
        return None


def unforeseen(picture_size: Size) -> Size | None:
    """The sight of a model of which only the answer tells how it saw the picture."""
    return None


@asynccontextmanager
async def within_deadline(ask: Ask, began: float) -> AsyncGenerator[None, None]:
    """The asker's deadline. Raises TooLate."""
    try:
        async with asyncio.timeout(began + ask.deadline_seconds - time.perf_counter()):
            yield
    except TimeoutError:
        raise TooLate(ask.deadline_seconds) from None


def retry_after_seconds(turns: float, mean_seconds: float) -> int:
    """When half of the turns before one's own are likely over, in whole seconds."""
    return max(1, min(_LONGEST_RETRY_SECONDS, math.ceil(turns * mean_seconds / 2)))
