"""What a completion's tokens are credited with: columns of rewards for TRL to combine, and advantages of single objects."""

# R rows (completions) of a process, T completion tokens.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from opengrit.core.types import Record
from opengrit.recipes.objective import ObjectCredit
from opengrit.rewards.rubric import Rubric
from opengrit.sampling.detokenizing import token_spans
from opengrit.training.object_credit import box_tokens, found_by, object_advantages, objects_of


class RewardColumns:
    """The rows' rewards as TRL combines them: one column with the totals, or one for each rewarded part.

    With `normalize_then_sum` TRL standardises each column over its group before it adds them up (GDPO, arXiv 2601.05242),
    and leaves out what is NaN: a part that says nothing about a row counts for nothing in it.
    """

    def __init__(self, rubric: Rubric, *, apart: bool) -> None:
        self._parts = [name for name, weight in rubric.weights.items() if weight] if apart else []
        self.weights = [float(rubric.weights[name]) for name in self._parts] or [1.0]

    @property
    def functions(self) -> list[Any]:
        """A function for each column, which TRL asks for and takes the names from; none is called."""
        return [_named(name) for name in self._parts or ["rubric_total"]]

    def of(self, records: Sequence[Record], *, skipped: bool) -> list[list[float]]:
        """The rows, column by column; NaN where a row has no total, where a part says nothing, and where all is skipped."""
        return [self._row(record, skipped=skipped) for record in records]

    def _row(self, record: Record, *, skipped: bool) -> list[float]:
        total = record.score.total
        if skipped or total is None:
            return [math.nan] * len(self.weights)
        if not self._parts:
            return [total]
        values = [record.score.parts.get(name) for name in self._parts]
        return [math.nan if value is None else value for value in values]


def _named(name: str) -> Callable[..., Any]:
    def column(**_: Any) -> list[float | None]:
        raise NotImplementedError(f"the column {name} comes from the rubric")

    column.__name__ = name
    return column


def flat_groups(rows: Sequence[Sequence[float]], *, group: int) -> list[bool | None]:
    """In which groups every column's measured values are equal; None where none is measured (NaN). Only False teaches something.

    Consecutive rows make a group. Equal sums in 32 bits differ by rounding, rewards by far more.
    """
    found: list[bool | None] = []
    for start in range(0, len(rows), group):
        columns = zip(*rows[start : start + group], strict=True)
        measured = [[value for value in column if not math.isnan(value)] for column in columns]
        known = [max(one) - min(one) < 1e-5 for one in measured if one]
        found.append(all(known) if known else None)
    return found


def flat_rows(flat: Sequence[bool | None], first_row: int, count: int, *, group: int) -> list[int]:
    """Of `count` rows, the first of which is `first_row` of all, those of groups that teach nothing."""
    return [row for row in range(count) if flat[(first_row + row) // group] is not False]


def idle_rows(rows: Sequence[int], prompts: Sequence[object], advantages: torch.Tensor) -> frozenset[int]:
    """Of a pass's rows those of groups without any advantage, R or R x T: without a KL term their gradient is zero.

    Rows of a group share one prompt object. One group is always left: a loss has a gradient, and processes that learn
    together wait for each other's.
    """
    some = advantages.view(len(rows), -1).any(1).tolist()
    teaching = {id(prompt) for prompt, has in zip(prompts, some, strict=True) if has} or {id(prompts[0])}
    return frozenset(row for row, prompt in zip(rows, prompts, strict=True) if id(prompt) not in teaching)


def with_object_credit(
    advantages_R: torch.Tensor,
    records: Sequence[Record],
    *,
    section: ObjectCredit,
    group: int,
    width: int,
    first_row: int,
    tokenizer: Any,
) -> tuple[torch.Tensor, list[bool]]:
    """Advantages of single tokens, R x T (`width`): the row's, and on a box's tokens its object's too; and which rows have one.

    All processes call this together: a group may begin on one and end on the next. `first_row` is the place of this
    process's first row among all. A box that two objects' tokens share has the sum of both.
    """
    found = [found_by(record, min_iou=section.min_iou) for record in records]
    every = object_advantages(gather_object(found), group=group)
    advantages_RT = advantages_R[:, None].repeat(1, width)
    credited = []
    for row, record in enumerate(records):
        own = {one: value for one, value in every[first_row + row].items() if value}
        credited.append(bool(own))
        if not own:
            continue
        starts, ends = token_spans(tokenizer, record.completion.token_ids, record.completion.text)
        tokens, objects = box_tokens(record, starts, ends), objects_of(record, min_iou=section.min_iou)
        for one, value in own.items():
            advantages_RT[row, list(tokens[objects[one][0]])] += section.weight * value
    return advantages_RT, credited
