"""Groups whose answers are all right or all wrong, drawn again a bounded number of times.

They are chosen by accuracy, never by the total: among groups that all fail, shaped rewards differ by little, and dividing by
that little would make their gradients as large as any (a policy was destroyed so in forty steps, verl-recipe#125).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

from accelerate.utils import gather_object

from opengrit.core.types import Record
from opengrit.evaluation.metrics import right
from opengrit.training.metrics import MetricSums

Pieces = list[list[Record]]  # consecutive rows of groups, as many in each


def flat_by_accuracy(accuracies: Sequence[float], *, group: int) -> list[bool]:
    """In which groups all judged answers are right, or all wrong; not where none is judged (NaN). Consecutive rows make a group."""
    found = []
    for start in range(0, len(accuracies), group):
        judged = {value for value in accuracies[start : start + group] if not math.isnan(value)}
        found.append(len(judged) == 1)
    return found


def redrawn(
    pieces: Pieces,
    *,
    times: int,
    group: int,
    first_row: int,
    sample: Callable[[Sequence[int], int], Pieces],
    settle: Callable[[Sequence[Record]], list[Record]],
    sums: MetricSums,
) -> Pieces:
    """The pieces with their verdicts, those of flat groups drawn again up to `times` times; the newest draw is kept.

    All processes call this together, each with its own pieces, the first of which begins at `first_row` of all rows.
    `sample` draws pieces by their places, for the draw of that number (from 1 on); `settle` waits for the verdicts of records.
    """
    size = len(pieces[0])
    pieces = _settled(pieces, settle)
    first = last = _flat_places(pieces, group=group, first_row=first_row, size=size)
    dropped = 0
    for draw in range(1, times + 1):
        if not any(gather_object([bool(last)])):
            break
        dropped += sum(len(r.completion.token_ids) for place in last for r in pieces[place])
        for place, piece in zip(last, _settled(sample(last, draw), settle) if last else (), strict=True):
            pieces[place] = piece
        last = _flat_places(pieces, group=group, first_row=first_row, size=size)
    for place in range(len(pieces)):
        sums.add("resampled/share", float(place in first))
        sums.add("resampled/still_flat", float(place in last))
    sums.add("resampled/dropped_tokens", float(dropped))
    return pieces


def _settled(pieces: Pieces, settle: Callable[[Sequence[Record]], list[Record]]) -> Pieces:
    records = iter(settle(list(chain.from_iterable(pieces))))
    return [[next(records) for _ in piece] for piece in pieces]


def _flat_places(pieces: Pieces, *, group: int, first_row: int, size: int) -> list[int]:
    """The places of the pieces whose groups are flat on all processes together."""
    own = [right(record) for piece in pieces for record in piece]
    every = gather_object([math.nan if value is None else value for value in own])
    flat = flat_by_accuracy(every, group=group)
    return [place for place in range(len(pieces)) if flat[(first_row + place * size) // group]]
