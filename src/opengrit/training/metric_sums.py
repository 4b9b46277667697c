"""A step's metrics, added up row by row: what several processes, passes and steps have added merges to what one would find."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Weighted sums, smallest and largest values by name. NaN says nothing and is left out."""

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)  # of weight x value, and of weights
    smallest: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float, *, weight: float = 1.0) -> None:
        """Counts into the mean of that name."""
        if not math.isnan(value):
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (total + weight * value, count + weight)

    def add_smallest(self, name: str, value: float) -> None:
        """Counts into the smallest value of that name."""
        if not math.isnan(value):
            self.smallest[name] = min(value, self.smallest.get(name, value))

    def add_largest(self, name: str, value: float) -> None:
        """Counts into the largest value of that name."""
        if not math.isnan(value):
            self.largest[name] = max(value, self.largest.get(name, value))

    def values(self) -> dict[str, float]:
        """Each name's mean, smallest or largest value; a name whose weights come to nothing has none."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count}
        return means | self.smallest | self.largest


def merged(tallies: Iterable[Tally]) -> Tally:
    """What all of them have added."""
    whole = Tally()
    for tally in tallies:
        for name, (total, count) in tally.sums.items():
            before = whole.sums.get(name, (0.0, 0.0))
            whole.sums[name] = (before[0] + total, before[1] + count)
        for name, value in tally.smallest.items():
            whole.add_smallest(name, value)
        for name, value in tally.largest.items():
            whole.add_largest(name, value)
    return whole
