"""A step's rollouts on one process: sampled group by group, laid out as TRL's rows, judged on a thread, and scored."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset

from opengrit.core.errors import ImageError
from opengrit.core.types import Example, Record, Unjudged, Verdict
from opengrit.evaluation.metrics import truncated
from opengrit.evaluation.rollout import EvaluationProtocol, ask, case_of, scored, settled
from opengrit.judges.pool import JudgePool, PendingVerdicts, Skip, decide
from opengrit.recipes.asking import AskingAgain
from opengrit.sampling import Asked, Sampler
from opengrit.sampling.model_inputs import PreparedPrompt
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.sampling.vllm import VllmSampler
from opengrit.training.asking_again import Cost, SecondLook

STOP = ("</answer>",)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Rows in TRL's order, one a completion. Rows of one question share one prompt object."""

    records: list[Record]
    prompts: list[PreparedPrompt]
    completion_ids: list[list[int]]
    masks: list[list[int]]  # 1: a sampled token, 0: an end token that was appended
    log_probs: list[list[float | None]] | None  # those that vLLM sampled with

    @property
    def lengths(self) -> list[int]:
        """The number of tokens that were sampled, row by row."""
        return [sum(mask) for mask in self.masks]

    def for_trl(self) -> dict[str, Any]:
        """What TRL takes from a rollout function."""
        return {
            "prompt_ids": [list(prompt.ids) for prompt in self.prompts],
            "completion_ids": self.completion_ids,
            "logprobs": self.log_probs,
            "env_mask": self.masks,
        }


def pieces(num_rows: int, *, group: int, first_row: int) -> tuple[int, list[int]]:
    """In what pieces a process samples its rows: completions of one piece, and each piece's place in its group.

    Processes hold consecutive rows of the generation batch, so a group may begin on one and end on the next.
    """
    size = math.gcd(num_rows, group)
    return size, [start % group for start in range(first_row, first_row + num_rows, size)]


def lay_out(
    groups: Sequence[Sequence[Record]],
    prompts: list[PreparedPrompt],
    sampler: Sampler,
    *,
    end_ids: Collection[int],
    appended_id: int,
) -> Rollouts:
    """The sampled groups as rows; `appended_id` ends a row that has none of `end_ids` and was not cut off."""
    records = [record for group in groups for record in group]
    rows = [completion_row(record, end_ids=end_ids, appended_id=appended_id) for record in records]
    completion_ids = [ids for ids, _ in rows]
    log_probs = None
    if isinstance(sampler, VllmSampler):  # as long as the rows; an appended token counts for nothing
        log_probs = [
            [*given[: len(ids)], *[0.0] * (len(ids) - len(given))]
            for given, ids in zip(sampler.last_log_probs, completion_ids, strict=True)
        ]
    return Rollouts(records, prompts, completion_ids, [mask for _, mask in rows], log_probs)


def completion_row(
    record: Record, *, end_ids: Collection[int], appended_id: int
) -> tuple[list[int], list[int]]:
    """Token ids and the mask of the sampled ones. TRL takes a row without a last end token for truncated."""
    ids = list(record.completion.token_ids)
    mask = [1] * len(ids)
    if record.failure is None and (ids[-1] in end_ids or truncated(record)):
        return ids, mask
    return [*ids, appended_id], [*mask, 0]


def prompts_of(
    groups: Sequence[Sequence[Record]],
    sampler: Sampler,
    *,
    preparer: TransformersSampler,
    protocol: EvaluationProtocol,
) -> list[PreparedPrompt]:
    """Each row's prompt; all processes call this together.

    A failed row takes another row's prompt: its mask is empty and it teaches nothing. Raises ImageError where no
    process has a readable picture.
    """
    prompts: Sequence[PreparedPrompt | None]
    if isinstance(sampler, (TransformersSampler, VllmSampler)):
        prompts = sampler.last_prompts  # not prepared again: a picture may be missing by now
    else:
        prompts = [preparer.prepare(ask(group[0].example, protocol=protocol)) for group in groups]
    stand_in = next((p for p in prompts if p is not None), None)
    if not any(gather_object([stand_in is not None])):
        raise ImageError(
            f"at least one picture of a batch must be readable, none of {len(groups)} is ({groups[0][0].failure}); "
            "check the image folder"
        )
    # Other processes have pictures where this one has none: it takes part in the step and learns nothing.
    stand_in = stand_in or preparer.prepare(Asked.blank())
    shared: dict[str, PreparedPrompt] = {}  # pieces of one group share their prompt
    return [
        shared.setdefault(group[0].example.id, prompt or stand_in)
        for prompt, group in zip(prompts, groups, strict=True)
        for _ in group
    ]


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How long a step waits for its verdicts, and the share of them (0 to 1) that it needs to be learned from."""

    deadline_seconds: float = 300.0
    min_judged_share: float = 0.5


class RolloutScorer:
    """Judges and scores one generation batch at a time, and asks its second questions where it is to. Close it when done."""

    def __init__(
        self, protocol: EvaluationProtocol, settings: JudgeSettings, asking: AskingAgain | None = None
    ) -> None:
        self._pool = JudgePool(protocol.judge)
        self._rubric, self._settings = protocol.rubric, settings
        self._second = None if asking is None else SecondLook(asking, protocol)
        self._pending: PendingVerdicts | None = None
        self._settled = False

    def start(self, records: Sequence[Record]) -> None:
        """Start judging the batch on a thread; the deadline runs from here."""
        cases = [case for record in records if (case := case_of(record)) is not None]
        self._pending, self._settled = None, False
        if cases:
            self._pending = self._pool.start(cases, deadline_seconds=self._settings.deadline_seconds)

    def settle(self, records: Sequence[Record]) -> list[Record]:
        """The records that judging was started with, with the verdicts that are there by the deadline."""
        self._settled = True
        return settled(records, [] if self._pending is None else self._pending.result())

    def ask_again(self, records: Sequence[Record], sampler: Sampler, *, stop: tuple[str, ...]) -> Cost | None:
        """Ask the second questions, while the first answers are judged; what that cost, None where nothing is asked again."""
        if self._second is None:
            return None
        deadline = self._settings.deadline_seconds
        return self._second.start(records, sampler, self._pool, stop=stop, deadline_seconds=deadline)

    def finish(self, records: Sequence[Record]) -> tuple[list[Record], str | None]:
        """The batch, scored with the verdicts that are there by the deadline, and why no process learns from the step.

        None: all do. All processes call this together.
        """
        judged = list(records) if self._settled else self.settle(records)
        second = None if self._second is None else self._second.finish(judged)
        found = scored(judged, rubric=self._rubric, second=second)
        # An opinion that is missing and that no reward needs does no harm.
        counted: list[Verdict | Unjudged] = [
            record.verdict
            for record in found
            if case_of(record) is not None
            and (isinstance(record.verdict, Verdict) or record.score.total is None)
        ]
        decision = decide(gather_object(counted), min_judged_share=self._settings.min_judged_share)
        return found, decision.reason if isinstance(decision, Skip) else None

    def close(self) -> None:
        """Stop judging; what has started is waited for."""
        self._pool.close()


def trl_rows(examples: Sequence[Example]) -> Dataset:
    """What TRL sees of the examples: the question, for its tables, and the example's number."""
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": example.question}] for example in examples],
            "example": list(range(len(examples))),
        }
    )


def split_rows(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """The generation batch in `parts` slices of consecutive rows; scalars go to every slice."""
    size = batch["row"].shape[0] // parts
    return [
        {k: v[i * size : (i + 1) * size] if v.ndim else v for k, v in batch.items()} for i in range(parts)
    ]
