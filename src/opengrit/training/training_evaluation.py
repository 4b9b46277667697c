"""In-training evaluation: some questions of each evaluation set, asked every few steps with the weights as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from opengrit.core.types import Example, Record
from opengrit.data import load_examples
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.probes import probed_now
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.prompts import strategy_named
from opengrit.recipes.asking import Eval
from opengrit.recipes.data_section import EvalSource
from opengrit.sampling import Sampler, SamplingSettings
from opengrit.training.rollouts import STOP

NUM_QUESTIONS = 32  # of each evaluation set; the whole set is for `opengrit eval`


@dataclass(frozen=True, slots=True)
class TrainingEvaluation:
    """Examples measured every `every` steps; `name` is their name in the metrics."""

    name: str
    examples: tuple[Example, ...]
    section: Eval  # how they are asked
    every: int
    probe: bool = False  # whether the evidence of the answers is probed too

    def records(self, sampler: Sampler, protocol: EvaluationProtocol) -> list[Record]:
        """The questions, asked, judged and scored."""
        return evaluate(
            sampler,
            self.examples,
            protocol=self._protocol(protocol),
            settings=self._settings,
            samples_per_question=self.section.samples,
            questions_per_batch=self.section.batch_size,
            quiet=True,
        )

    def probes(
        self, sampler: Sampler, protocol: EvaluationProtocol, records: Sequence[Record]
    ) -> list[Record] | None:
        """The answers asked again about pictures with parts in grey; None where the evidence is not probed."""
        if not self.probe:
            return None
        return probed_now(
            sampler,
            records,
            protocol=self._protocol(protocol),
            settings=self._settings,
            questions_per_batch=self.section.batch_size,
        )

    def _protocol(self, protocol: EvaluationProtocol) -> EvaluationProtocol:
        strategy = self.section.strategy or protocol.strategy
        return replace(protocol, strategy=strategy, rubric=protocol.rubric.of_first_answers())

    @property
    def _settings(self) -> SamplingSettings:
        return SamplingSettings(
            temperature=self.section.temperature,
            max_new_tokens=self.section.max_completion_length,
            stop=STOP,
        )


def training_evaluations(
    sources: Sequence[EvalSource], section: Eval, *, every: int | None
) -> list[TrainingEvaluation]:
    """One evaluation for each data set; none where `every` is None."""
    if every is None:
        return []
    found = []
    if section.strategy is not None:  # a prompt of the recipe's own is read once
        section = section.model_copy(update={"strategy": strategy_named(section.strategy)})
    for source in sources:
        examples = load_examples(source.spec, source.images, table=source.table)
        count = min(len(examples), NUM_QUESTIONS)
        spaced = tuple(examples[i * len(examples) // count] for i in range(count))
        found.append(TrainingEvaluation(source.spec, spaced, section, every, source.probe))
    return found
