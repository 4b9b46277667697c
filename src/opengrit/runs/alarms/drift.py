"""Boxes that drift: answers get better while boxes leave what they were about, which no other curve shows.

Four signs, each of which is enough. In the rows of the training: the IoU with the rows' own boxes falls, or boxes shrink. Fewer
boxes are no drift, so area is counted by the box; nor is shrinking that raises the IoU, or that of a model which only learns
the format. In the evaluations while training: the IoU falls, or the probes say that answers need their boxes less. Those ask
the same few dozen questions each time, so that falls are paired by question, with an interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opengrit.runs.alarms.windows import WINDOW, Row, every_window, fall_of, number_of

# Forty steps of the demo: at 3e-4 the IoU falls to 0.7 of its best, in training and evaluation; at 1e-4 to 0.94.
_IOU_TO = 0.85
_SHRANK_TO = 0.8  # of its largest window
_IN_FORMAT = 0.8  # of the completions: before, boxes are those of a format that is not learned yet
_POINTS = 0.5  # boxes a completion: fewer are another failure
_LESS_NEEDED = 0.1  # of the mean of necessity and sufficiency; at 3e-4 it falls by 0.11 to 0.13
_PATIENCE = 2  # evaluations in a row
_FEWEST = 10  # questions
_NORMAL = statistics.NormalDist().inv_cdf(0.975)
_REMEDY = (
    "in this order: lower train.learning_rate; add a KL term (train.beta: 0.04); reward "
    "the rows' own boxes (box_dual) where there are any; or ask again (rewards kept and hidden with asking_again: {})"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A question of an evaluation: whether its answer is right, the IoU of its boxes, and how much it needs them.

    `needed` is the mean of necessity and sufficiency of the one answer, -0.5 to 1. None: not measured.
    """

    right: float | None
    iou: float | None
    needed: float | None


Evaluation = Mapping[str, Answered]  # by data set and question


def answers_of(row: Row) -> dict[str, Answered]:
    """The questions of a line of evaluations.jsonl; none in one that an earlier version wrote."""
    return {f"{row['data']} {name}": Answered(*values) for name, values in row.get("answers", {}).items()}


def drift(rows: Sequence[Row], evaluations: Mapping[int, Evaluation]) -> str | None:
    """What drifts and the remedies, None where nothing does. `evaluations` are by step."""
    signs = [_iou_fell(rows), _shrinking(rows), _evaluated_iou(evaluations), _less_needed(evaluations)]
    found = [sign for sign in signs if sign is not None]
    return (
        f"{' and '.join(found)}, while answers are no worse: boxes drift away from the answers; {_REMEDY}"
        if found
        else None
    )


# In the rows of the training.


def _iou_fell(rows: Sequence[Row]) -> str | None:
    known = [
        row for row in rows if _knows(row, "grounding_iou", "accuracy", "boxes") and row["boxes"] >= _POINTS
    ]
    fall = fall_of(known, "grounding_iou", to=_IOU_TO)
    if fall is None or max(row["grounding_iou"] for row in known[-WINDOW:]) > _IOU_TO * fall.best:
        return None
    accuracies = {step: statistics.fmean(values) for step, values in every_window(known, "accuracy")}
    if accuracies[max(accuracies)] < accuracies[fall.step]:
        return None
    return f"the IoU of the training's boxes fell from {fall.best:.2f} (step {fall.step}) to {fall.now:.2f}"


def _shrinking(rows: Sequence[Row]) -> str | None:
    settled = [row for row in rows if (number_of(row, "format") or 0.0) >= _IN_FORMAT]
    measured = [row for row in settled if _knows(row, "covered_area", "boxes", "accuracy") and row["boxes"]]
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
    return f"a box covers {means[-1]:.1%} of the picture, at step {areas[best][0]} it was {means[best]:.1%}"


def _knows(row: Row, *keys: str) -> bool:
    return all(number_of(row, key) is not None for key in keys)


def _change(rows: Sequence[Row], key: str, *, since: int) -> float:
    """The last window's mean minus that of the window of this number; 0 where it is not measured in every row."""
    windows = every_window(rows, key)
    if len(windows) != len(every_window(rows, "area of a box")):
        return 0.0
    return statistics.fmean(windows[-1][1]) - statistics.fmean(windows[since][1])


# In the evaluations.


@dataclass(frozen=True, slots=True)
class _Fall:
    """Means of a quantity over the questions where it is known at both steps."""

    best: float
    step: int
    now: float
    num_questions: int


def _evaluated_iou(evaluations: Mapping[int, Evaluation]) -> str | None:
    fall = _fall_since_best(evaluations, lambda one: one.iou, enough=lambda was, now: now <= _IOU_TO * was)
    if fall is None:
        return None
    return f"the IoU on {fall.num_questions} questions of the evaluations fell from {fall.best:.2f} (step {fall.step}) to {fall.now:.2f}"


def _less_needed(evaluations: Mapping[int, Evaluation]) -> str | None:
    fall = _fall_since_best(
        evaluations, lambda one: one.needed, enough=lambda was, now: now <= was - _LESS_NEEDED
    )
    if fall is None:
        return None
    return (
        f"necessity and sufficiency of {fall.num_questions} answers of the evaluations come to {fall.now:.0%} on average, "
        f"at step {fall.step} to {fall.best:.0%}"
    )


def _fall_since_best(
    evaluations: Mapping[int, Evaluation],
    value: Callable[[Answered], float | None],
    *,
    enough: Callable[[float, float], bool],
) -> _Fall | None:
    """The newest fall since the best evaluation, where the newest two fell far enough, clear of chance, with accuracy no lower."""
    means = {step: _mean(evaluations[step], value) for step in sorted(evaluations)}
    known = [step for step, mean in means.items() if mean is not None]
    if len(known) <= _PATIENCE:
        return None
    best = max(known[:-_PATIENCE], key=lambda step: means[step] or 0.0)
    falls = [_fall(evaluations, best, step, value) for step in known[-_PATIENCE:]]
    newest = falls[-1]
    return newest if all(fall is not None and enough(fall.best, fall.now) for fall in falls) else None


def _mean(evaluation: Evaluation, value: Callable[[Answered], float | None]) -> float | None:
    values = [found for one in evaluation.values() if (found := value(one)) is not None]
    return statistics.fmean(values) if len(values) >= _FEWEST else None


def _fall(
    evaluations: Mapping[int, Evaluation],
    before: int,
    after: int,
    value: Callable[[Answered], float | None],
) -> _Fall | None:
    """From one step to another, where its 95 % interval is clear of zero and that of accuracy's does not say it fell too."""
    was, now = evaluations[before], evaluations[after]
    pairs = _pairs(was, now, value)
    if len(pairs) < _FEWEST or _interval(pairs)[1] >= 0.0:
        return None
    rights = _pairs(was, now, lambda one: one.right)
    if len(rights) >= _FEWEST and _interval(rights)[1] < 0.0:
        return None
    first, second = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    return _Fall(first, before, second, len(pairs))


def _pairs(
    was: Evaluation, now: Evaluation, value: Callable[[Answered], float | None]
) -> list[tuple[float, float]]:
    pairs = [(value(was[name]), value(now[name])) for name in was.keys() & now.keys()]
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 95 % interval of the mean difference, of the normal distribution: questions are many enough for it."""
    differences = [other - one for one, other in pairs]
    half = _NORMAL * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return mean - half, mean + half
