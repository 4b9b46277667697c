"""Ask a picture a question and get an answer that points, with boxes in the picture's own pixels."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.drawing import draw_boxes
from opengrit.core.errors import DataError, ImageError, ModelError
from opengrit.core.images import open_any, picture_size
from opengrit.evaluation.evaluator import progress_bar
from opengrit.grounding.prompts import Strategy, strategy_named, user_text
from opengrit.inference.answer import (
    GROUND_ID,
    Answer,
    GroundedBox,
    Unanswered,
    check_question,
    read_answer,
)
from opengrit.inference.listeners import Heard, Wanted, put_into
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled

if TYPE_CHECKING:
    from opengrit.core.images import AnyPicture

__all__ = [
    "GROUND_ID",
    "Answer",
    "GroundedBox",
    "Grounder",
    "Unanswered",
    "check_question",
    "draw_answer",
    "is_endpoint",
    "read_answer",
]

_ASKED_AT_ONCE = 64  # threads that stream or wait for an answer on behalf of an event loop
_TRIES = 3  # requests for one question at an endpoint, before a person is told
_T = TypeVar("_T")


class Grounder:
    """A model to ask. `Grounder.load("tiny-qwen2.5-vl").ask("dogs.png", "How many dogs are there?")`.

    A picture is a file's path, its bytes, a Pillow picture or a uint8 array (see `opengrit.core.images.open_any`). One Grounder
    may be used by many threads; those that share a model in memory wait for each other. Every `ask` method takes
    `temperature` (0 takes the most likely token), `max_new_tokens` and `seed`: the same ones give the same answer,
    asked alone or among many.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        frame: str,
        strategy: Strategy | str = Strategy.GROUNDED,
        model: str = "",
        sees: Callable[[Image.Image], Size] | None = None,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`model` names the sampler's model in answers.

        `sees` tells the size in which the model sees a picture (default: its own), and `turn` is held while the sampler
        samples (default: a lock of its own).
        """
        self._sampler = sampler
        self._frame = frame
        self._strategy = strategy_named(strategy)
        self._model = model
        self._turn = threading.Lock() if turn is None else turn
        self._sees = sees
        self._threads = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="opengrit-ask")

    @classmethod
    def load(
        cls,
        name: str,
        /,
        *,
        strategy: Strategy | str = Strategy.GROUNDED,
        frame: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        model: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
    ) -> Grounder:
        """The model of a packaged name, hub id, run folder, model folder or adapter, or behind an endpoint's URL.

        With a URL (`http://host:8000/v1`) `frame` is needed, the model type of the served model ("qwen2_5_vl") or its
        unit ("pixels", "thousand", "unit"), since an endpoint does not tell; `model` is its name there and may be left
        out where the endpoint serves one; `api_key_env` names the environment variable that holds the key.
        `min_pixels` and `max_pixels` bound the picture that the model sees (Qwen families).

        Raises ModelError where the model cannot be had, RecipeError for an unknown strategy or frame; both before a
        model loads.
        """
        strategy = strategy_named(strategy)
        if is_endpoint(name):
            from opengrit.sampling.endpoint import EndpointSampler

            remote = EndpointSampler.connect(
                name,
                model=model,
                frame=frame,
                min_pixels=min_pixels,
                max_pixels=max_pixels,
                api_key_env=api_key_env,
                max_tries=_TRIES,
            )
            return cls(
                remote,
                frame=remote.frame,
                strategy=strategy,
                model=remote.model,
                sees=remote.sees,
                turn=nullcontext(),
            )
        if model is not None:
            raise ModelError(
                f"model is the name of a model behind an endpoint's URL, got {model!r} beside {name!r}; leave it out"
            )
        from opengrit.models import load
        from opengrit.sampling.transformers_engine import TransformersSampler

        loaded = load(name, frame=frame, min_pixels=min_pixels, max_pixels=max_pixels)
        sampler = TransformersSampler(loaded, vision_is_fixed=True)

        def sees(picture: Image.Image) -> Size:
            return sampler.prepare(Asked(GROUND_ID, picture, "")).picture.seen_size

        return cls(sampler, frame=loaded.frame, strategy=strategy, model=loaded.name, sees=sees)

    @property
    def sampler(self) -> Sampler:
        """What answers the questions."""
        return self._sampler

    @property
    def frame(self) -> str:
        """The coordinates the model writes: a model type, or "pixels", "thousand" or "unit"."""
        return self._frame

    @property
    def model(self) -> str:
        """The model's name, as it stands in the answers."""
        return self._model

    def seen_size(self, image: AnyPicture) -> Size:
        """The size in pixels in which the model sees a picture. Raises ImageError."""
        picture = open_any(image)
        if self._sees is None:
            return Size(*picture.size)
        with self._turn:
            return self._sees(picture)

    # -- one question -------------------------------------------------------------------------------------------

    def ask(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """The answer to one question about one picture.

        Raises ImageError where the picture cannot be read, DataError for a question that is no text, and ModelError
        where the model cannot take them (a picture too slim for its processor) or its endpoint does not answer.
        """
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return self._ask(image, question, settings, listener=None)

    def stream(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str | Answer]:
        """The text while it is written, piece by piece, and then the `Answer` that `ask` gives.

        The pieces joined are the answer's text. Closing the iterator stops the model at its next token.
        Raises as `ask` does, when the first piece is asked for.
        """
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        pieces: queue.SimpleQueue[str | Answer | Exception] = queue.SimpleQueue()
        heard = Heard(pieces.put)
        working = self._threads.submit(self._speak, image, question, settings, heard)
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if isinstance(piece, Answer):
                    return
        finally:
            heard.stop()
            working.result()

    async def aask(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """As `ask`, in a thread, so that the event loop goes on. Cancelling it stops the model at its next token."""
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        wanted = Wanted()
        with wanted:
            return await self._in_a_thread(lambda: self._ask(image, question, settings, listener=wanted))

    async def astream(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> AsyncIterator[str | Answer]:
        """As `stream`, for an event loop."""
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        heard = Heard(lambda piece: put_into(loop, pieces, piece))
        self._threads.submit(self._speak, image, question, settings, heard)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if isinstance(piece, Answer):
                    return
        finally:
            heard.stop()

    def _speak(self, image: AnyPicture, question: str, settings: SamplingSettings, heard: Heard) -> None:
        try:
            heard.end(self._ask(image, question, settings, listener=heard))
        except Exception as error:  # handed over to whoever listens, and raised there
            heard.end(error)

    def _ask(
        self,
        image: AnyPicture,
        question: str,
        settings: SamplingSettings,
        *,
        listener: Wanted | None,
    ) -> Answer:
        check_question(question)
        began = time.perf_counter()
        picture = open_any(image)
        asked = Asked(GROUND_ID, picture, user_text(self._strategy, question, family=self._frame))
        [[said]] = self._sample([asked], settings, listener=listener)
        match said:
            case Unsampled(reason=reason):
                raise ModelError(reason)
            case Sampled():
                return self._read(said, question, Size(*picture.size), time.perf_counter() - began)

    # -- many questions -----------------------------------------------------------------------------------------

    def ask_many(
        self,
        pairs: Iterable[tuple[AnyPicture, str]],
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 32,
        quiet: bool = False,
    ) -> list[Answer | Unanswered]:
        """An answer for each (picture, question), in order; `itertools.product(pictures, questions)` asks all of each.

        Each is what `ask` gives for it alone. What cannot be asked is `Unanswered` with the reason, and holds up
        nothing else. `batch_size` questions are written together, each picture of a batch is opened and encoded once,
        and a progress bar runs on standard error unless `quiet`. `seconds` of an answer are those of its batch.
        """
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return self._ask_many(list(pairs), settings, batch_size=batch_size, quiet=quiet, listener=None)

    async def aask_many(
        self,
        pairs: Iterable[tuple[AnyPicture, str]],
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 32,
        quiet: bool = True,
    ) -> list[Answer | Unanswered]:
        """As `ask_many`, in a thread, so that the event loop goes on. Cancelling it stops the model at its next token."""
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        wanted = Wanted()
        with wanted:
            asked = list(pairs)
            return await self._in_a_thread(
                lambda: self._ask_many(asked, settings, batch_size=batch_size, quiet=quiet, listener=wanted)
            )

    def _ask_many(
        self,
        pairs: Sequence[tuple[AnyPicture, str]],
        settings: SamplingSettings,
        *,
        batch_size: int,
        quiet: bool,
        listener: Wanted | None,
    ) -> list[Answer | Unanswered]:
        if batch_size < 1:
            raise DataError(f"batch_size is at least 1 question, got {batch_size}; give a larger one")
        given: list[Answer | Unanswered] = []
        with progress_bar(quiet) as progress:
            task = progress.add_task("asking", total=len(pairs))
            for start in range(0, len(pairs), batch_size):
                if listener is not None and not listener.wants(0):
                    break  # cancelled: nobody hears the rest
                batch = pairs[start : start + batch_size]
                given += self._ask_batch(batch, settings, listener=listener)
                progress.advance(task, len(batch))
        return given

    def _ask_batch(
        self,
        pairs: Sequence[tuple[AnyPicture, str]],
        settings: SamplingSettings,
        *,
        listener: Wanted | None,
    ) -> list[Answer | Unanswered]:
        began = time.perf_counter()
        opened = _Opened()
        ready: dict[int, tuple[Asked, Size]] = {}
        given: dict[int, Answer | Unanswered] = {}
        for place, (image, question) in enumerate(pairs):
            try:
                check_question(question)
                picture, size = opened.open(image)
            except (ImageError, DataError) as error:
                given[place] = Unanswered(str(question), str(error))
                continue
            text = user_text(self._strategy, question, family=self._frame)
            ready[place] = Asked(GROUND_ID, picture, text), size
        asked = [question for question, _ in ready.values()]
        groups = self._sample(asked, settings, listener=listener) if asked else []
        seconds = time.perf_counter() - began
        for (place, (_, size)), [said] in zip(ready.items(), groups, strict=True):
            question = pairs[place][1]
            match said:
                case Unsampled(reason=reason):
                    given[place] = Unanswered(question, reason)
                case Sampled():
                    given[place] = self._read(said, question, size, seconds)
        return [given[place] for place in range(len(pairs))]

    # -- looking ------------------------------------------------------------------------------------------------

    def draw(self, answer: Answer, image: AnyPicture) -> Image.Image:
        """The picture with the answer's boxes on it, numbered and coloured (see `opengrit.core.drawing.draw_boxes`).

        Raises ImageError for a picture that cannot be read or is of another size than the one the answer is about.
        """
        return draw_answer(answer, image)

    async def _in_a_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _sample(
        self, asked: Sequence[Asked], settings: SamplingSettings, *, listener: Wanted | None
    ) -> list[list[Sampled | Unsampled]]:
        with self._turn:
            return self._sampler.sample(asked, samples_per_question=1, settings=settings, listener=listener)

    def _read(self, sampled: Sampled, question: str, size: Size, seconds: float) -> Answer:
        return read_answer(
            sampled,
            question=question,
            picture_size=size,
            strategy=self._strategy,
            frame_name=self._frame,
            seconds=seconds,
            model=self._model,
        )


def draw_answer(answer: Answer, image: AnyPicture) -> Image.Image:
    """The picture with the answer's boxes on it; raises ImageError as `Grounder.draw` does."""
    picture = open_any(image)
    if Size(*picture.size) != answer.picture_size:
        raise ImageError(
            f"an answer is drawn on the picture it is about, of {answer.picture_size.width} x "
            f"{answer.picture_size.height} pixels, this one has {picture.width} x {picture.height}; give that picture"
        )
    return draw_boxes(picture, answer.boxes)


def is_endpoint(name: str) -> bool:
    """Whether a model's name is the URL of an OpenAI-compatible endpoint."""
    return name.startswith(("http://", "https://"))


class _Opened:
    """The pictures of a batch: a file is left to the sampler, anything else is opened once however often it is asked about."""

    def __init__(self) -> None:
        self._by_object: dict[int, Image.Image] = {}

    def open(self, image: AnyPicture) -> tuple[str | Image.Image, Size]:
        """What the sampler is given, and the picture's size. Raises ImageError."""
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            return str(path), picture_size(path)
        if id(image) not in self._by_object:
            self._by_object[id(image)] = open_any(image)
        picture = self._by_object[id(image)]
        return picture, Size(*picture.size)
