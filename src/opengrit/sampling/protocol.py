"""The sampler protocol: questions about pictures in, completions out.

A sampler is anything with `sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.types import Completion


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt about one picture: `text` is the whole user turn, instruction included; `system` comes in a turn before it.

    `image` is a path, or an opened picture (oriented, RGB; it is not changed).
    """

    id: str
    image: str | Image.Image
    text: str
    system: str | None = None

    @classmethod
    def blank(cls) -> Asked:
        """A question about a blank picture, which a process asks with the others when none of its own can be read."""
        return cls("stand-in", Image.new("RGB", (112, 112)), "?")


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How completions are sampled. Temperature 0 takes the most likely token and ignores `top_p` and `top_k`.

    `top_p` is in (0, 1], `top_k` 0 means no limit, `max_new_tokens` is in tokens, `stop` are strings that end a
    completion where they occur (they stay in its text). `first_sample` is the number of the first completion: where
    several processes sample a question's completions, each samples its part of the whole.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    seed: int = 0
    stop: tuple[str, ...] = ("</answer>",)
    first_sample: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p lies in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k is 0 (no limit) or more, got {self.top_k}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is at least 1, got {self.max_new_tokens}")
        if any(not s for s in self.stop):
            raise ValueError("a stop string has at least one character, got an empty one")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion, with the prompt's token ids and the picture size in pixels that the model saw.

    Token counts are given where ids are not known: an endpoint's own, None where it does not count.
    """

    completion: Completion
    prompt_ids: tuple[int, ...]
    seen_size: Size
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Unsampled:
    """There is no completion: the picture cannot be read, the endpoint is down. Never an empty answer.

    `status` is the HTTP status of an endpoint that refused the question itself: 400, 404, 413 or 422.
    """

    reason: str
    status: int | None = None

    @classmethod
    def unwanted(cls) -> Unsampled:
        """The listener wants no more of the question."""
        return cls("no longer wanted")


class Listener(Protocol):
    """Receives completions while they are sampled. `question` is the place among the questions asked, from 0."""

    def wrote(self, question: int, sample: int, text: str) -> None:
        """New text of a completion; joined, the pieces are the completion's text."""
        ...

    def wants(self, question: int) -> bool:
        """False stops the question before its next token: what is unfinished is `Unsampled`. Asked before every token."""
        ...


class Sampler(Protocol):
    """Answers prompts about pictures."""

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """`samples_per_question` results for each question, in the order of the questions.

        `settings` are for all questions, or one for each of them. A question that cannot be asked yields `Unsampled`
        in every place and does not hold up the others.
        """
        ...


def settings_of_each(
    settings: SamplingSettings | Sequence[SamplingSettings], *, count: int
) -> list[SamplingSettings]:
    """The settings of each of `count` questions. Raises ValueError where there are neither one nor `count`."""
    if isinstance(settings, SamplingSettings):
        return [settings] * count
    if len(settings) != count:
        raise ValueError(
            f"settings are one for all questions or one for each, got {len(settings)} for {count} questions"
        )
    return list(settings)
