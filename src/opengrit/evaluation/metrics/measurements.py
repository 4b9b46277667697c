"""What quantities say of many records, each asked once, as columns that tables, categories and plots take parts of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from opengrit.core.types import Example, Record
from opengrit.evaluation.metrics.controls import majority_control, random_boxes_control
from opengrit.evaluation.metrics.estimates import BOOTSTRAP_SEED, Estimate, Quantity, key_of, mean_of

# R records of a part, K examples of all records.


class Measurements:
    """Records in columns: each quantity looks at each record once, however many means are taken of it.

    The means are those of `estimate` and `paired_difference`. `part` takes some of the records; parts share the columns.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = tuple(records)
        keys = [key_of(record.example) for record in self.records]
        self._keys = sorted(set(keys))
        place = {key: number for number, key in enumerate(self._keys)}
        self._example = np.fromiter((place[key] for key in keys), dtype=np.int64, count=len(keys))
        self._columns: dict[Quantity, np.ndarray] = {}
        self._whole = self
        self._rows: np.ndarray | None = None  # of the whole's columns; None is all

    @classmethod
    def of(cls, records: Sequence[Record] | Measurements) -> Measurements:
        """The measurements of these records; measurements stay what they are."""
        return records if isinstance(records, Measurements) else cls(records)

    def __len__(self) -> int:
        return len(self.records)

    def part(self, rows: Sequence[int] | np.ndarray) -> Measurements:
        """The records at these places, on the same columns."""
        part = object.__new__(Measurements)
        part.records = tuple(self.records[row] for row in rows)
        chosen = np.asarray(rows, dtype=np.int64)
        part._keys = self._keys
        part._example = self._example[chosen]
        part._whole = self._whole
        part._rows = chosen if self._rows is None else self._rows[chosen]
        return part

    def parts(self, category: Callable[[Example], str | None]) -> dict[str, Measurements]:
        """The records of each category, in alphabetical order; those of category None are left out."""
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(self.records):
            name = category(record.example)
            if name is not None:
                rows.setdefault(name, []).append(row)
        return {name: self.part(rows[name]) for name in sorted(rows)}

    @property
    def num_examples(self) -> int:
        """How many different examples the records are of."""
        return len(np.unique(self._example))

    @cached_property
    def majority(self) -> Quantity:
        """The control of accuracy, with each data set's answer chosen over these records."""
        return majority_control(self.records)

    @cached_property
    def random_boxes(self) -> Quantity:
        """The control of grounding IoU at random places, of the usual seed."""
        return random_boxes_control(seed=BOOTSTRAP_SEED)

    def column(self, quantity: Quantity) -> np.ndarray:
        """What the quantity says of each record, float64, shape (R,); NaN where it says nothing."""
        columns, records = self._whole._columns, self._whole.records
        if quantity not in columns:
            said = map(quantity, records)
            columns[quantity] = np.fromiter(
                (math.nan if value is None else value for value in said), dtype=np.float64, count=len(records)
            )
        return columns[quantity] if self._rows is None else columns[quantity][self._rows]

    def estimate(self, quantity: Quantity, *, seed: int = BOOTSTRAP_SEED) -> Estimate:
        """The mean over the examples that the quantity applies to, each weighing the same."""
        mean_K = self._means(quantity)
        return mean_of(mean_K[~np.isnan(mean_K)].tolist(), generator=np.random.default_rng(seed))

    def difference(self, later: Measurements, quantity: Quantity) -> Estimate:
        """The mean over examples of (later - this), on the examples measured on both sides."""
        was_K, is_now_K = self._means(quantity), later._means(quantity)
        if self._keys != later._keys:
            there = {key: place for place, key in enumerate(later._keys)}
            shared = [(place, there[key]) for place, key in enumerate(self._keys) if key in there]
            ours, theirs = np.array(shared, dtype=np.int64).reshape(-1, 2).T
            was_K, is_now_K = was_K[ours], is_now_K[theirs]
        change_K = is_now_K - was_K
        return mean_of(change_K[~np.isnan(change_K)].tolist())

    def _means(self, quantity: Quantity) -> np.ndarray:
        """The mean of each example's records, in the order of the examples' names, shape (K,); NaN where there is none."""
        value_R, example_R = self.column(quantity), self._example
        measured = ~np.isnan(value_R)
        value_R, example_R = value_R[measured], example_R[measured]
        mean_K = np.full(len(self._keys), math.nan)
        if len(np.unique(example_R)) == len(example_R):
            mean_K[example_R] = value_R
            return mean_K
        order = np.argsort(example_R, kind="stable")
        starts = np.flatnonzero(np.diff(example_R[order], prepend=-1))
        for values, example in zip(
            np.split(value_R[order], starts[1:]), example_R[order][starts], strict=True
        ):
            mean_K[example] = math.fsum(values.tolist()) / len(
                values
            )  # to the last bit, whatever the order of records
        return mean_K


def measured(runs: Mapping[str, Sequence[Record] | Measurements]) -> dict[str, Measurements]:
    """The measurements of each run."""
    return {name: Measurements.of(records) for name, records in runs.items()}
