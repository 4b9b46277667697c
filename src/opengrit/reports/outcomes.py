"""The outcome of an answer: right or wrong, and whether its boxes are where the annotated ones are."""

from __future__ import annotations

from enum import Enum

from opengrit.core.types import Record, Verdict
from opengrit.evaluation.metrics import grounding_iou

GROUNDED_FROM = 0.5  # union IoU


class Outcome(Enum):
    """How an answer came out. Grounded means a union IoU of 0.5 or more with the annotated boxes."""

    RIGHT_GROUNDED = "right and grounded"
    RIGHT_UNGROUNDED = "right but ungrounded"
    WRONG_GROUNDED = "wrong but grounded"
    WRONG = "wrong"
    RIGHT_UNKNOWN = "right, no boxes to compare with"
    UNKNOWN = "not judged"  # or failed, or truncated


def outcome_of(record: Record) -> Outcome:
    """The outcome of one answer; a wrong one without annotated boxes is WRONG."""
    right, iou = is_right(record), grounding_iou(record)
    if right is None:
        return Outcome.UNKNOWN
    grounded = iou is not None and iou >= GROUNDED_FROM
    if not right:
        return Outcome.WRONG_GROUNDED if grounded else Outcome.WRONG
    if iou is None:
        return Outcome.RIGHT_UNKNOWN
    return Outcome.RIGHT_GROUNDED if grounded else Outcome.RIGHT_UNGROUNDED


def is_right(record: Record) -> bool | None:
    """Whether the answer is correct; None where the rollout failed or nobody judged it."""
    if record.failure is not None or not isinstance(record.verdict, Verdict):
        return None
    return record.verdict.correct
