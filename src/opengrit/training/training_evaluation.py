"""In-training evaluation: some questions of each evaluation set, asked every few steps with the weights as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.recipes.training_recipe import Eval, Source
from opengrit.sampling import Sampler, SamplingSettings
from opengrit.training.metrics import evaluation_row
from opengrit.training.rollouts import STOP

NUM_QUESTIONS = 32  # of each evaluation set; the whole set is for `opengrit eval`


@dataclass(frozen=True, slots=True)
class TrainingEvaluation:
    """Examples measured every `every` steps; `name` is their name in the metrics."""

    name: str
    examples: tuple[Example, ...]
    settings: SamplingSettings
    every: int
    questions_per_batch: int = 16
    samples_per_question: int = 1
    strategy: str | None = None  # None: the training's own

    def measure(self, sampler: Sampler, protocol: EvaluationProtocol) -> dict[str, float]:
        """Accuracy, IoU, format rate and the others by their names in the metrics."""
        records = evaluate(
            sampler,
            self.examples,
            protocol=replace(protocol, strategy=self.strategy or protocol.strategy),
            settings=self.settings,
            samples_per_question=self.samples_per_question,
            questions_per_batch=self.questions_per_batch,
            quiet=True,
        )
        return evaluation_row(self.name, records)


def training_evaluations(
    sources: Sequence[Source], section: Eval, *, every: int | None
) -> list[TrainingEvaluation]:
    """One evaluation for each data set; none where `every` is None."""
    if every is None:
        return []
    settings = SamplingSettings(
        temperature=section.temperature, max_new_tokens=section.max_completion_length, stop=STOP
    )
    return [
        TrainingEvaluation(
            source.spec,
            tuple(_evenly_spaced(load_examples(source.spec, source.images), NUM_QUESTIONS)),
            settings,
            every,
            questions_per_batch=section.batch_size,
            samples_per_question=section.samples,
            strategy=section.strategy,
        )
        for source in sources
    ]


def _evenly_spaced(examples: list[Example], count: int) -> list[Example]:
    """At most `count` examples, evenly spaced over the list."""
    if len(examples) <= count:
        return examples
    return [examples[i * len(examples) // count] for i in range(count)]
