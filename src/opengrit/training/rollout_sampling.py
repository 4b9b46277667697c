"""How a generation batch's rollouts are sampled: by which sampler, with which random numbers, and drawn again where a group is flat."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

from opengrit.core.types import Example, Record
from opengrit.evaluation.rollout import EvaluationProtocol, roll_out
from opengrit.sampling import Sampler, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.sampling.vllm import VllmSampler
from opengrit.training.metrics import MetricSums
from opengrit.training.redrawing import redrawn
from opengrit.training.rollouts import Rollouts, RolloutScorer, lay_out, pieces, prompts_of

_SEED_STEP = 1_000_003  # keeps the seeds of different runs and steps apart
_SEED_OF_DRAW = 2**64  # and those of a group's second draw


@dataclass(frozen=True, slots=True)
class OwnRows:
    """The rows of a generation batch on this process: consecutive ones of all, `first_row` the first of them.

    `group` rows in a row ask one question; a group may begin on one process and end on the next.
    """

    examples: Sequence[Example]
    group: int
    first_row: int
    generation: int  # the batch's number, from 0
    step: int  # the optimizer step it is recorded under


@dataclass(frozen=True, slots=True)
class RolloutSampling:
    """Samples and parses one generation batch at a time, and starts to judge it.

    `model_sampler` is the model that learns, in this process; `second_sampler` is the same model for second questions, whose
    pictures are shown once. A completion that does not end with one of `end_ids` is given `appended_id`.
    """

    model_sampler: TransformersSampler
    second_sampler: TransformersSampler
    protocol: EvaluationProtocol
    scorer: RolloutScorer
    settings: SamplingSettings  # with the run's seed
    resample_flat_groups: int
    end_ids: Collection[int]
    appended_id: int
    autocast: Callable[[], AbstractContextManager[Any]]

    def settings_of(self, generation: int) -> SamplingSettings:
        """How the `generation`-th batch (from 0) is sampled: alike each time, and on every process.

        A completion's random numbers come from the seed, its question and its place in the group, so that several
        processes sample what one would.
        """
        return replace(self.settings, seed=self.settings.seed * _SEED_STEP + generation)

    def roll_out(self, rows: OwnRows, sampler: Sampler, sums: MetricSums) -> Rollouts:
        """The rows' rollouts by `sampler`, whose verdicts the scorer waits for. All processes call this together."""
        size, places = pieces(len(rows.examples), group=rows.group, first_row=rows.first_row)

        def sample(wanted: Sequence[int], draw: int) -> list[list[Record]]:
            groups = self._sample(rows, sampler, size, [(i, places[i]) for i in wanted], draw=draw)
            self.scorer.start([record for group in groups for record in group])
            return groups

        groups = sample(range(len(places)), 0)
        prompts = prompts_of(groups, sampler, preparer=self.model_sampler, protocol=self.protocol)
        if self.resample_flat_groups:
            groups = redrawn(
                groups,
                times=self.resample_flat_groups,
                group=rows.group,
                first_row=rows.first_row,
                sample=sample,
                settle=self.scorer.settle,
                sums=sums,
            )
        rollouts = lay_out(groups, prompts, sampler, end_ids=self.end_ids, appended_id=self.appended_id)
        self._ask_again(rollouts, sampler, sums)
        return rollouts

    def _sample(
        self, rows: OwnRows, sampler: Sampler, size: int, wanted: Sequence[tuple[int, int]], *, draw: int
    ) -> list[list[Record]]:
        """Pieces of `size` completions: of each its number on this process, and its place in its group."""
        settings = self.settings_of(rows.generation)
        settings = replace(settings, seed=settings.seed + draw * _SEED_OF_DRAW)
        with self.autocast():
            return roll_out(
                sampler,
                [rows.examples[piece * size] for piece, _ in wanted],
                protocol=self.protocol,
                samples_per_question=size,
                settings=[replace(settings, first_sample=place) for _, place in wanted],
                step=rows.step,
            )

    def _ask_again(self, rollouts: Rollouts, sampler: Sampler, sums: MetricSums) -> None:
        # vLLM samples as it was configured to.
        by_model = sampler is self.model_sampler or isinstance(sampler, VllmSampler)
        with self.autocast():
            cost = self.scorer.ask_again(
                rollouts.records, self.second_sampler if by_model else sampler, stop=self.settings.stop
            )
        for name, value in (asdict(cost) if cost is not None else {}).items():
            sums.add(f"asking_again/{name}", float(value))
