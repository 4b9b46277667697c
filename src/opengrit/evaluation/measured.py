"""A few figures of one model on one data set under one prompt, beside their controls: what a run keeps and a card shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from opengrit.core.types import Record
from opengrit.evaluation.metrics import Estimate, truncated, unjudged
from opengrit.evaluation.metrics.summaries import summarise


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures on the questions of one data set. All are 0 to 1, each a mean over its own n with a 95 % interval.

    `num_questions` were asked, which may be a part of the set; `num_unjudged` answers have no verdict and `num_truncated`
    were cut off: neither is wrong, both are left out. The last three are what costs nothing: the most frequent answer of
    the set, one box over the whole picture, and the model's own boxes moved to random places.
    """

    data: str
    strategy: str
    num_questions: int
    num_unjudged: int
    num_truncated: int
    accuracy: Estimate
    grounding_iou: Estimate
    follows_format: Estimate
    majority_answer: Estimate
    whole_picture_iou: Estimate
    random_boxes_iou: Estimate


_ESTIMATES = (
    "accuracy",
    "grounding_iou",
    "follows_format",
    "majority_answer",
    "whole_picture_iou",
    "random_boxes_iou",
)


def measured(records: Sequence[Record], *, data: str) -> Measured:
    """The figures of records of one data set, all asked under one prompt. Raises ValueError where there are none."""
    if not records:
        raise ValueError(f"figures need at least one record, got none of {data}")
    found = summarise(records).overall
    return Measured(
        data=data,
        strategy=records[0].strategy,
        num_questions=found.num_examples,
        num_unjudged=sum(unjudged(record) == 1.0 for record in records),
        num_truncated=sum(truncated(record) == 1.0 for record in records),
        accuracy=found.right,
        grounding_iou=found.grounding_iou,
        follows_format=found.follows_format,
        majority_answer=found.majority_answer,
        whole_picture_iou=found.whole_picture_iou,
        random_boxes_iou=found.random_boxes_iou,
    )


def to_json(one: Measured) -> dict[str, Any]:
    """The figures as a JSON object; an estimate is a list of its value, n, and the ends of its interval."""
    plain = {field.name: getattr(one, field.name) for field in fields(one)}
    for name in _ESTIMATES:
        found = plain[name]
        plain[name] = [found.value, found.n, found.low, found.high]
    return plain


def from_json(value: Mapping[str, Any]) -> Measured:
    """The figures that `to_json` wrote; other keys are left out. Raises ValueError where they are something else."""
    try:
        plain = {field.name: value[field.name] for field in fields(Measured)}
        return Measured(**plain | {name: _estimate(plain[name]) for name in _ESTIMATES})
    except (KeyError, TypeError) as error:
        raise ValueError(f"figures must be as opengrit wrote them, these are not ({error!r})") from error


def _estimate(value: Sequence[Any]) -> Estimate:
    mean, n, low, high = value
    numbers = [one for one in (mean, low, high) if one is not None]
    if not isinstance(n, int) or not all(math.isfinite(one) for one in numbers):
        raise TypeError(f"an estimate is a number, n and an interval, got {value!r}")
    return Estimate(mean, n, low, high)
