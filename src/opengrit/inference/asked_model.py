"""A model with the prompt it is asked by: questions about pictures go in, answers with boxes come out, one by one or in batches."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError, ModelError
from opengrit.core.images import open_any, picture_size
from opengrit.core.progress import progress_bar
from opengrit.grounding.prompts import OwnPrompt, Strategy, user_text
from opengrit.inference.answer import GROUND_ID, Answer, Unanswered, check_question, read_answer
from opengrit.inference.listeners import StopSignal
from opengrit.sampling import Asked, Sampler, SamplingSettings, Unsampled

if TYPE_CHECKING:
    from opengrit.core.images import AnyPicture

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class AskedModel:
    """What `Grounder` asks. Threads that share one wait for each other where `lock` is one.

    `seen_size_of` gives the size in which the model sees a picture (None: the picture's own). `stickers_only` is for the
    packaged models and those trained from them.
    """

    sampler: Sampler
    frame: str
    strategy: Strategy | OwnPrompt
    system: str | None
    name: str
    seen_size_of: Callable[[Image.Image], Size] | None
    lock: AbstractContextManager[Any]
    stickers_only: bool
    _told: bool = field(default=False, init=False)

    def seen_size(self, image: AnyPicture) -> Size:
        """The size in pixels in which the model sees a picture. Raises ImageError."""
        picture = open_any(image)
        if self.seen_size_of is None:
            return Size(*picture.size)
        with self.lock:
            return self.seen_size_of(picture)

    def tell_what_it_knows(self, sizes: Iterable[Size], *, name: str | None = None) -> None:
        """Log a warning, once, where a model that knows stickers only is asked about a picture of another size than theirs.

        `name` is what the reader calls the model (default: its own name).
        """
        if self._told or not self.stickers_only:
            return
        from opengrit.models.sticker_models import is_sticker_sized, what_it_knows

        foreign = next((size for size in sizes if not is_sticker_sized(size)), None)
        if foreign is not None:
            self._told = True
            _log.warning(
                "%s (here: %d x %d pixels)", what_it_knows(name or self.name), foreign.width, foreign.height
            )

    def ask(
        self,
        image: AnyPicture,
        question: str,
        settings: SamplingSettings,
        listener: StopSignal | None = None,
    ) -> Answer:
        """The answer to one question. Raises ImageError, DataError and ModelError as `Grounder.ask` does."""
        check_question(question)
        began = time.perf_counter()
        picture = open_any(image)
        [answer] = self._answers([(question, picture, Size(*picture.size))], settings, began, listener)
        if isinstance(answer, Unanswered):
            raise ModelError(answer.reason)
        if isinstance(image, str | os.PathLike):  # a thousand answers hold paths, not pictures
            return replace(answer, picture=os.path.abspath(image))
        return answer

    def ask_many(
        self,
        pairs: Sequence[tuple[AnyPicture, str]],
        settings: SamplingSettings,
        batch_size: int,
        quiet: bool,
        listener: StopSignal | None = None,
    ) -> list[Answer | Unanswered]:
        """An answer for each pair, in order; fewer where the listener stops. Raises DataError for a `batch_size` below 1."""
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
            Asked(GROUND_ID, picture, user_text(self.strategy, question, family=self.frame), self.system)
            for question, picture, _ in questions
        ]
        with self.lock:
            groups = self.sampler.sample(asked, samples_per_question=1, settings=settings, listener=listener)
        seconds = time.perf_counter() - began
        return [
            Unanswered(question, sampled.reason)
            if isinstance(sampled, Unsampled)
            else read_answer(
                sampled,
                question=question,
                picture_size=size,
                strategy=self.strategy,
                system=self.system,
                frame_name=self.frame,
                seconds=seconds,
                model=self.name,
                picture=os.path.abspath(picture) if isinstance(picture, str) else picture,
            )
            for (question, picture, size), [sampled] in zip(questions, groups, strict=True)
        ]


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
