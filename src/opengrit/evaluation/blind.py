"""A sampler that shows every picture grey, of its own size: what a model knows without looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from opengrit.core.errors import ImageError
from opengrit.core.images import open_picture
from opengrit.evaluation.probes import GREY
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled
from opengrit.sampling.protocol import Listener


class BlindSampler:
    """Asks another sampler the same questions about grey pictures."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says; a picture that cannot be read is still one."""
        return self._sampler.sample(
            [_blinded(question) for question in questions],
            samples_per_question=samples_per_question,
            settings=settings,
            listener=listener,
        )


def _blinded(question: Asked) -> Asked:
    try:
        size = (open_picture(question.image) if isinstance(question.image, str) else question.image).size
    except ImageError:
        return question  # the sampler says why
    return replace(question, image=Image.new("RGB", size, GREY))
