"""The order in which questions are asked: every row each epoch, and the same order again after a resume."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

_SEED_STEP = 1_000_003  # keeps the orders of different seeds and epochs apart


class EvenOrder(Sampler[int]):
    """Row numbers for TRL: each question `group` times in a row, each generation batch `repeats` times over.

    An epoch has ceil(rows / questions) generation batches and uses every row. Where the rows do not fill the last
    batch it is filled up with other rows, taking turns from epoch to epoch, so that all are used equally often.
    The order depends on the seed and the epoch alone.
    """

    def __init__(self, num_rows: int, *, questions: int, group: int, repeats: int, seed: int) -> None:
        self.num_rows = num_rows
        self.questions = questions
        self.group = group
        self.repeats = repeats
        self.seed = seed
        self.epoch = 0

    @property
    def num_batches(self) -> int:
        """Generation batches in an epoch."""
        return math.ceil(self.num_rows / self.questions)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def rows_of_epoch(self, epoch: int) -> list[int]:
        """The questions of an epoch in order, `num_batches` x `questions` of them."""
        order = _shuffled(self.num_rows, self.seed * _SEED_STEP + epoch)
        spare = self.num_batches * self.questions - self.num_rows
        if spare == 0:
            return order
        turn = _shuffled(self.num_rows, self.seed)  # who fills up, in turns over the epochs
        extra = [turn[(epoch * spare + i) % self.num_rows] for i in range(spare)]
        # The last batch asks distinct questions: the rows that fill it up have been asked before it.
        last = [row for row in order if row not in extra][-(self.questions - spare) :]
        return [row for row in order if row not in last] + last + extra

    def __len__(self) -> int:
        return self.num_batches * self.questions * self.group * self.repeats

    def __iter__(self) -> Iterator[int]:
        rows = self.rows_of_epoch(self.epoch)
        for start in range(0, len(rows), self.questions):
            for _ in range(self.repeats):
                for row in rows[start : start + self.questions]:
                    yield from [row] * self.group


def _shuffled(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
