"""The replay sampler: recorded completions, returned again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opengrit.core.boxes import Size
from opengrit.core.types import Completion
from opengrit.sampling.protocol import Asked, Listener, Sampled, SamplingSettings, Unsampled, settings_of_each


class ReplaySampler:
    """Returns recorded completions by question id, the first for sample 0, and so on.

    A question without enough recorded completions yields `Unsampled` in the missing places.
    """

    def __init__(
        self, completions: Mapping[str, Sequence[Completion]], *, seen_size: Size | Mapping[str, Size]
    ) -> None:
        self._completions = completions
        self._seen_size = seen_size

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the protocol says; a listener receives each completion whole."""
        each = settings_of_each(settings, count=len(questions))
        results = [
            self._replay(question, samples_per_question, first=own.first_sample)
            for question, own in zip(questions, each, strict=True)
        ]
        if listener is None:
            return results
        for place, group in enumerate(results):
            if not listener.wants(place):
                group[:] = [Unsampled.unwanted()] * samples_per_question
            for sample, given in enumerate(group):
                if isinstance(given, Sampled):
                    listener.wrote(place, sample, given.completion.text)
        return results

    def _replay(self, question: Asked, count: int, *, first: int) -> list[Sampled | Unsampled]:
        recorded = list(self._completions.get(question.id, ()))[first : first + count]
        given: list[Sampled | Unsampled] = [
            Sampled(c, prompt_ids=(), seen_size=self._seen(question.id)) for c in recorded
        ]
        missing = Unsampled(
            f"{first + len(recorded)} completions are recorded for {question.id}, {first + count} were asked for"
        )
        return given + [missing] * (count - len(recorded))

    def _seen(self, question_id: str) -> Size:
        return self._seen_size if isinstance(self._seen_size, Size) else self._seen_size[question_id]
