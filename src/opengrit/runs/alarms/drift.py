"""Boxes that drift: answers get better while boxes leave what they were about, which no other curve shows.

Two signs, each of which is enough: the boxes of the training rows shrink, and the probes of the evaluations say that answers
need their boxes less. Fewer boxes are no drift, so area is counted by the box; nor is shrinking that raises the IoU, where
the rows' own boxes are known.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opengrit.runs.alarms.windows import Row, every_window, number_of

_SHRANK_TO = 0.8  # of its largest window: in our trials boxes that drift end at 0.7 to 0.8
_LESS_NEEDED = 0.1  # of the mean of necessity and sufficiency; both fell by 0.13 in our trials
_PATIENCE = 2  # evaluations in a row: a few dozen questions are noisy
_REMEDY = (
    "in this order: lower train.learning_rate; add a KL term (train.beta: 0.04); reward the rows' own boxes (box_dual) "
    "if there are any; or ask again (rewards kept and hidden with asking_again: {})"
)


def drift(rows: Sequence[Row], evaluations: Mapping[int, Row]) -> str | None:
    """What drifts and the remedies, None where nothing does. `evaluations` are by step."""
    signs = [sign for sign in (_shrinking(rows), _less_needed(evaluations)) if sign is not None]
    return f"{' and '.join(signs)}, while answers are no worse: the boxes drift; {_REMEDY}" if signs else None


def _shrinking(rows: Sequence[Row]) -> str | None:
    wanted = ("covered_area", "boxes", "accuracy")
    measured = [
        row for row in rows if all(number_of(row, key) is not None for key in wanted) and row["boxes"]
    ]
    sized: list[dict[str, Any]] = [
        {**row, "area of a box": row["covered_area"] / row["boxes"]} for row in measured
    ]
    areas = every_window(sized, "area of a box")
    if len(areas) < 2:
        return None
    means = [statistics.fmean(values) for _, values in areas]
    best = max(range(len(means)), key=means.__getitem__)
    if means[-1] > _SHRANK_TO * means[best] or _change(sized, "accuracy", since=best) < 0.0:
        return None
    if _change(sized, "grounding_iou", since=best) > 0.0:
        return None
    return (
        f"a box covers {means[-1]:.1%} of the picture, down from {means[best]:.1%} at step {areas[best][0]}"
    )


def _change(rows: Sequence[Row], key: str, *, since: int) -> float:
    """The last window's mean minus that of the window of this number; 0 where it is not measured in every row."""
    windows = every_window(rows, key)
    if len(windows) != len(every_window(rows, "area of a box")):
        return 0.0
    return statistics.fmean(windows[-1][1]) - statistics.fmean(windows[since][1])


@dataclass(frozen=True, slots=True)
class _Probed:
    step: int
    needed: float  # the mean of necessity and sufficiency
    accuracy: float


def _less_needed(evaluations: Mapping[int, Row]) -> str | None:
    probed = [
        found for step in sorted(evaluations) if (found := _probed(step, evaluations[step])) is not None
    ]
    if len(probed) <= _PATIENCE:
        return None
    best = max(probed[:-_PATIENCE], key=lambda one: one.needed)
    newest = probed[-_PATIENCE:]
    fell = all(one.needed <= best.needed - _LESS_NEEDED and one.accuracy >= best.accuracy for one in newest)
    if not fell:
        return None
    return f"necessity and sufficiency average {newest[-1].needed:.0%}, down from {best.needed:.0%} at step {best.step}"


def _probed(step: int, row: Row) -> _Probed | None:
    """The scores of an evaluation's sets together, each weighed by its answers that were probed."""
    sets = [key.removesuffix("/necessity") for key in row if key.endswith("/necessity")]
    scores: list[tuple[float, float, float]] = []
    for name in sets:
        values = [
            number_of(row, f"{name}/{key}") for key in ("probed", "necessity", "sufficiency", "accuracy")
        ]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            scores.append((known[0], (known[1] + known[2]) / 2, known[3]))
    weight = sum(count for count, _, _ in scores)
    if not weight:
        return None
    return _Probed(
        step,
        sum(count * needed for count, needed, _ in scores) / weight,
        sum(count * accuracy for count, _, accuracy in scores) / weight,
    )
