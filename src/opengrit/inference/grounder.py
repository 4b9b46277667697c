"""Ask a picture a question and get an answer that points, with boxes in the picture's own pixels."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.drawing import draw_boxes
from opengrit.core.errors import ImageError, ModelError
from opengrit.core.images import open_any
from opengrit.core.output import quieten_libraries
from opengrit.grounding.prompts import Strategy, strategy_named
from opengrit.inference.answer import GROUND_ID, Answer, Unanswered
from opengrit.inference.asked_model import AskedModel
from opengrit.inference.listeners import QueueListener, StopSignal
from opengrit.sampling import Asked, Sampler, SamplingSettings

if TYPE_CHECKING:
    from opengrit.core.images import AnyPicture

_MAX_THREADS = 64  # that stream, or wait for an answer on behalf of an event loop
_MAX_TRIES = 3  # requests for one question at an endpoint
_T = TypeVar("_T")


class Grounder:
    """A model to ask. `Grounder.load("tiny-qwen2.5-vl").ask("dogs.png", "How many dogs are there?")`.

    A picture is a file's path, its bytes, a Pillow picture or a uint8 array (see `opengrit.core.images.open_any`). One Grounder
    may be used by many threads; those that share a model in memory wait for each other. Every `ask` method takes
    `temperature` (0 takes the most likely token), `max_new_tokens` and `seed`: the same values give the same answer,
    alone or in a batch.
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
        """`model` names the sampler's model in answers, `system` is the system message before the question.

        `seen_size_of` gives the size at which the model sees a picture (default: the picture's own), and `lock` is held during
        sampling (default: a new lock). `stickers_only` is for the packaged models and those trained from
        them: the first picture that is not sticker world's logs a warning.
        """
        self._asked = AskedModel(
            sampler,
            frame=frame,
            strategy=strategy_named(strategy),
            system=system,
            name=model,
            seen_size_of=seen_size_of,
            lock=threading.Lock() if lock is None else lock,
            stickers_only=stickers_only,
        )
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
        """Load a packaged name, hub id, run folder, model folder or adapter, or connect to an endpoint's URL.

        A URL (`http://host:8000/v1`) needs `frame`, the model type of the served model ("qwen2_5_vl") or its
        unit ("pixels", "thousand", "unit"), because an endpoint does not say it; `model` is its name there, optional
        if the endpoint serves only one; `api_key_env` names the environment variable that holds the key.
        `min_pixels` and `max_pixels` limit the picture that the model sees (Qwen families).

        `strategy` may be your own prompt, a text file with `{question}` in it or `prompt.py:function`, and `system` is
        the system message before the question. Raises ModelError if there is no such model, RecipeError for an invalid
        strategy or frame; both before a model loads.
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
        return self._asked.sampler

    @property
    def frame(self) -> str:
        """The coordinates the model writes: a model type, or "pixels", "thousand" or "unit"."""
        return self._asked.frame

    @property
    def model(self) -> str:
        """The model's name in the answers."""
        return self._asked.name

    @property
    def stickers_only(self) -> bool:
        """Whether the model is a packaged one, or trained from one."""
        return self._asked.stickers_only

    def tell_what_it_knows(self, sizes: Iterable[Size], *, name: str | None = None) -> None:
        """Log a warning, once, if a model that knows stickers only is asked about a picture of another size than theirs.

        `name` is what the reader calls the model (default: its own name).
        """
        self._asked.tell_what_it_knows(sizes, name=name)

    def seen_size(self, image: AnyPicture) -> Size:
        """The size in pixels at which the model sees a picture. Raises ImageError."""
        return self._asked.seen_size(image)

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

        Raises ImageError if the picture cannot be read, DataError for a question that is not text, and ModelError
        if the model cannot take them (a picture too narrow for its processor) or its endpoint does not answer.
        """
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return self._asked.ask(image, question, settings)

    def stream(
        self,
        image: AnyPicture,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str | Answer]:
        """The text piece by piece while the model writes it, and then the `Answer` that `ask` returns.

        The pieces joined are the answer's text. Closing the iterator stops the model at its next token.
        Raises the errors of `ask` when the first piece is requested.
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
        return await self._in_thread(partial(self._asked.ask, image, question, settings))

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
            listener.put(self._asked.ask(image, question, settings, listener))
        except Exception as error:  # raised where the pieces are read
            listener.put(error)

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

        Each answer equals that of `ask`. A pair that cannot be asked gives `Unanswered` with the reason and does not affect
        the others. `batch_size` questions are sampled together, each picture of a batch is opened and encoded once,
        and a progress bar is shown on standard error unless `quiet`. `seconds` of an answer are those of its batch.
        """
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return self._asked.ask_many(list(pairs), settings, batch_size, quiet)

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
        return await self._in_thread(partial(self._asked.ask_many, list(pairs), settings, batch_size, quiet))

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
