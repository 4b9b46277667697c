"""Ask a picture a question and get an answer that points, with boxes in the picture's own pixels."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.drawing import draw_boxes
from opengrit.core.errors import DataError, ImageError, ModelError
from opengrit.core.images import open_any, picture_size
from opengrit.core.output import quieten_libraries
from opengrit.core.progress import progress_bar
from opengrit.grounding.prompts import Strategy, strategy_named, user_text
from opengrit.inference.answer import GROUND_ID, Answer, Unanswered, check_question, read_answer
from opengrit.inference.listeners import QueueListener, StopSignal
from opengrit.sampling import Asked, Sampler, SamplingSettings, Unsampled

if TYPE_CHECKING:
    from opengrit.core.images import AnyPicture

_log = logging.getLogger(__name__)

_MAX_THREADS = 64  # that stream, or wait for an answer on behalf of an event loop
_MAX_TRIES = 3  # requests for one question at an endpoint
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
        system: str | None = None,
        model: str = "",
        seen_size_of: Callable[[Image.Image], Size] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        stickers_only: bool = False,
    ) -> None:
        """`model` names the sampler's model in answers, `system` is the text of a turn before the question.

        `seen_size_of` gives the size in which the model sees a picture (default: the picture's), and `lock` is held while
        the sampler samples (default: a lock of its own). `stickers_only` is for the packaged models and those trained from
        them: the first picture that is none of sticker world's is answered with a warning in the log.
        """
        self._sampler = sampler
        self._frame = frame
        self._strategy = strategy_named(strategy)
        self._system = system
        self._model = model
        self._seen_size_of = seen_size_of
        self._lock = threading.Lock() if lock is None else lock
        self._stickers_only = stickers_only
        self._told = False
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="opengrit-ask")

    @classmethod
    def load(
        cls,
        name: str,
        /,
        *,
        strategy: Strategy | str = Strategy.GROUNDED,
        system: str | None = None,
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

        `strategy` may be a prompt of your own, a text file with `{question}` in it or `prompt.py:function`, and `system` is
        the text of a turn before the question. Raises ModelError where the model cannot be had, RecipeError for a strategy or
        frame that cannot be used; both before a model loads.
        """
        strategy = strategy_named(strategy)
        if name.startswith(("http://", "https://")):
            from opengrit.sampling.endpoint import EndpointSampler

            remote = EndpointSampler.connect(
                name,
                model=model,
                frame=frame,
                min_pixels=min_pixels,
                max_pixels=max_pixels,
                api_key_env=api_key_env,
                max_tries=_MAX_TRIES,
            )
            return cls(
                remote,
                frame=remote.frame,
                strategy=strategy,
                system=system,
                model=remote.model,
                seen_size_of=remote.sees,
                lock=nullcontext(),
            )
        if model is not None:
            raise ModelError(
                f"model names a model behind an endpoint's URL, got {model!r} with {name!r}; leave it out"
            )
        from opengrit.models import load
        from opengrit.models.sticker_models import knows_stickers_only
        from opengrit.sampling.transformers_engine import TransformersSampler

        quieten_libraries()
        loaded = load(name, frame=frame, min_pixels=min_pixels, max_pixels=max_pixels)
        sampler = TransformersSampler(loaded, vision_is_fixed=True)

        def seen_size_of(picture: Image.Image) -> Size:
            return sampler.prepare(Asked(GROUND_ID, picture, "")).picture.seen_size

        return cls(
            sampler,
            frame=loaded.frame,
            strategy=strategy,
            system=system,
            model=loaded.name,
            seen_size_of=seen_size_of,
            stickers_only=knows_stickers_only(name),
        )

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
        """The model's name in the answers."""
        return self._model

    @property
    def stickers_only(self) -> bool:
        """Whether the model is a packaged one, or trained from one."""
        return self._stickers_only

    def tell_what_it_knows(self, sizes: Iterable[Size], *, name: str | None = None) -> None:
        """Log a warning, once, where a model that knows stickers only is asked about a picture of another size than theirs.

        `name` is what the reader calls the model (default: its own name).
        """
        if self._told or not self._stickers_only:
            return
        from opengrit.models.sticker_models import is_sticker_sized, what_it_knows

        foreign = next((size for size in sizes if not is_sticker_sized(size)), None)
        if foreign is not None:
            self._told = True
            _log.warning(
                "%s (here: %d x %d pixels)", what_it_knows(name or self._model), foreign.width, foreign.height
            )

    def seen_size(self, image: AnyPicture) -> Size:
        """The size in pixels in which the model sees a picture. Raises ImageError."""
        picture = open_any(image)
        if self._seen_size_of is None:
            return Size(*picture.size)
        with self._lock:
            return self._seen_size_of(picture)

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
        return self._ask(image, question, settings)

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
        listener = QueueListener[Answer | Exception](pieces.put)
        writing = self._threads.submit(self._write, listener, image, question, settings)
        try:
            while isinstance(piece := _unless_failed(pieces.get()), str):
                yield piece
            yield piece
        finally:
            listener.stop()
            writing.result()

    async def aask(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """As `ask`, in a thread, so that the event loop stays free. Cancelling it stops the model at its next token."""
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return await self._in_thread(partial(self._ask, image, question, settings))

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
        pieces: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        listener = QueueListener[Answer | Exception].in_loop(pieces)
        self._threads.submit(self._write, listener, image, question, settings)
        try:
            while isinstance(piece := _unless_failed(await pieces.get()), str):
                yield piece
            yield piece
        finally:
            listener.stop()

    def _write(
        self,
        listener: QueueListener[Answer | Exception],
        image: AnyPicture,
        question: str,
        settings: SamplingSettings,
    ) -> None:
        try:
            listener.put(self._ask(image, question, settings, listener))
        except Exception as error:  # raised where the pieces are read
            listener.put(error)

    def _ask(
        self,
        image: AnyPicture,
        question: str,
        settings: SamplingSettings,
        listener: StopSignal | None = None,
    ) -> Answer:
        check_question(question)
        began = time.perf_counter()
        picture = open_any(image)
        [answer] = self._answers([(question, picture, Size(*picture.size))], settings, began, listener)
        if isinstance(answer, Unanswered):
            raise ModelError(answer.reason)
        if isinstance(image, str | os.PathLike):  # a thousand answers hold paths, not pictures
            return replace(answer, picture=os.path.abspath(image))
        return answer

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
        return self._ask_many(list(pairs), settings, batch_size, quiet)

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
        """As `ask_many`, in a thread, so that the event loop stays free. Cancelling it stops the model at its next token."""
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return await self._in_thread(partial(self._ask_many, list(pairs), settings, batch_size, quiet))

    def _ask_many(
        self,
        pairs: Sequence[tuple[AnyPicture, str]],
        settings: SamplingSettings,
        batch_size: int,
        quiet: bool,
        listener: StopSignal | None = None,
    ) -> list[Answer | Unanswered]:
        if batch_size < 1:
            raise DataError(f"batch_size is at least 1 question, got {batch_size}; give a larger one")
        given: list[Answer | Unanswered] = []
        with progress_bar(quiet) as progress:
            task = progress.add_task("asking", total=len(pairs))
            for start in range(0, len(pairs), batch_size):
                if listener is not None and not listener.wants(0):
                    break  # cancelled: nobody waits for the rest
                batch = pairs[start : start + batch_size]
                given += self._ask_batch(batch, settings, listener)
                progress.advance(task, len(batch))
        return given

    def _ask_batch(
        self,
        pairs: Sequence[tuple[AnyPicture, str]],
        settings: SamplingSettings,
        listener: StopSignal | None,
    ) -> list[Answer | Unanswered]:
        began = time.perf_counter()
        opened: dict[int, Image.Image] = {}
        ready: dict[int, tuple[str, str | Image.Image, Size]] = {}
        given: dict[int, Answer | Unanswered] = {}
        for place, (image, question) in enumerate(pairs):
            try:
                check_question(question)
                ready[place] = question, *_opened(image, opened)
            except (ImageError, DataError) as error:
                given[place] = Unanswered(str(question), str(error))
        if ready:
            answers = self._answers(list(ready.values()), settings, began, listener)
            given |= zip(ready, answers, strict=True)
        return [given[place] for place in range(len(pairs))]

    # -- both ---------------------------------------------------------------------------------------------------

    def _answers(
        self,
        questions: Sequence[tuple[str, str | Image.Image, Size]],
        settings: SamplingSettings,
        began: float,
        listener: StopSignal | None,
    ) -> list[Answer | Unanswered]:
        """What the model says to each question about its picture, whose size in pixels is given."""
        self.tell_what_it_knows(size for _, _, size in questions)
        asked = [
            Asked(GROUND_ID, picture, user_text(self._strategy, question, family=self._frame), self._system)
            for question, picture, _ in questions
        ]
        with self._lock:
            groups = self._sampler.sample(asked, samples_per_question=1, settings=settings, listener=listener)
        seconds = time.perf_counter() - began
        return [
            Unanswered(question, sampled.reason)
            if isinstance(sampled, Unsampled)
            else read_answer(
                sampled,
                question=question,
                picture_size=size,
                strategy=self._strategy,
                system=self._system,
                frame_name=self._frame,
                seconds=seconds,
                model=self._model,
                picture=os.path.abspath(picture) if isinstance(picture, str) else picture,
            )
            for (question, picture, size), [sampled] in zip(questions, groups, strict=True)
        ]

    async def _in_thread(self, work: Callable[[StopSignal], _T]) -> _T:
        signal = StopSignal()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, signal)
        finally:
            signal.stop()

    def draw(self, answer: Answer, image: AnyPicture) -> Image.Image:
        """The picture with the answer's boxes on it, numbered and coloured (see `opengrit.core.drawing.draw_boxes`).

        Raises ImageError for a picture that cannot be read or is of another size than the one the answer is about.
        """
        picture = open_any(image)
        if Size(*picture.size) != answer.picture_size:
            raise ImageError(
                f"an answer is drawn on its own picture of {answer.picture_size.width} x {answer.picture_size.height} "
                f"pixels, got {picture.width} x {picture.height}; give that picture"
            )
        return draw_boxes(picture, answer.boxes)


def _unless_failed(piece: str | Answer | Exception) -> str | Answer:
    if isinstance(piece, Exception):
        raise piece
    return piece


def _opened(image: AnyPicture, opened: dict[int, Image.Image]) -> tuple[str | Image.Image, Size]:
    """What the sampler is given, and the picture's size. Raises ImageError.

    A file is left to the sampler; a picture in memory is opened once, however often a batch asks about it.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return str(path), picture_size(path)
    if id(image) not in opened:
        opened[id(image)] = open_any(image)
    picture = opened[id(image)]
    return picture, Size(*picture.size)
