"""Quantities over rows of metrics: numbers, windows of them, and how far a window is from an earlier one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

# Rows over which a quantity is averaged before it is judged, and for which an alarm must be away before it can be
# raised again: one odd batch is no trend, and a step of a large model is too dear to wait for many.
WINDOW = 5

_TYPICAL_ERRORS = 4.0  # standard errors by which a fall must exceed what steps vary by
_FELL_TO = 0.5  # of its best: so far falls what has collapsed


@dataclass(frozen=True, slots=True)
class Change:
    """How far a quantity has come from another window, which ends at `step`."""

    best: float
    now: float
    step: int


def number_of(row: Row, key: str) -> float | None:
    """A metric that was measured; None where it was not, or is not finite (null in the file, NaN in memory)."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def values_of(rows: Sequence[Row], key: str) -> list[float]:
    return [n for row in rows if (n := number_of(row, key)) is not None]


def last_window(rows: Sequence[Row], key: str, *, iterations: int) -> list[float] | None:
    """The last `WINDOW` values of a metric; None where there are not as many in so many rows.

    Rows of steps that learn from an older generation again have no rewards: of `iterations` rows one has them.
    """
    values = values_of(rows[-2 * WINDOW * iterations :], key)[-WINDOW:]
    return values if len(values) == WINDOW else None


def mean_of(rows: Sequence[Row], key: str, *, iterations: int) -> float | None:
    values = last_window(rows, key, iterations=iterations)
    return None if values is None else statistics.fmean(values)


def every_window(rows: Sequence[Row], key: str) -> list[tuple[int, list[float]]]:
    """Every window of a metric with the step it ends at, in order."""
    found = [(int(row["step"]), n) for row in rows if (n := number_of(row, key)) is not None]
    return [
        (found[end - 1][0], [n for _, n in found[end - WINDOW : end]])
        for end in range(WINDOW, len(found) + 1)
    ]


def fall_of(rows: Sequence[Row], key: str, *, to: float = _FELL_TO) -> Change | None:
    """A quantity's fall to that share of its best window or less, and by clearly more than its steps vary."""
    windows = every_window(rows, key)
    if len(windows) <= WINDOW:
        return None
    now = windows[-1][1]
    step, best = max(windows[:-WINDOW], key=lambda window: statistics.fmean(window[1]))
    high, low = statistics.fmean(best), statistics.fmean(now)
    error = math.sqrt((statistics.variance(best) + statistics.variance(now)) / WINDOW)
    if high <= 0 or low > to * high or high - low < _TYPICAL_ERRORS * error:
        return None
    return Change(high, low, step)
