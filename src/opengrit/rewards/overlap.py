"""Rewards of where the boxes lie, against the row's own boxes: recall, precision, both, one to one; and repeated boxes.

A new reward is a function here and its entry in `OVERLAP_REWARDS`. A box that is written twice counts once.
"""

from __future__ import annotations

import math

from opengrit.core.boxes import Box, match, pairwise_iou
from opengrit.core.types import boxes_are_one_to_one, is_counting
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec

NEAR_DUPLICATE = 0.9  # IoU above which a box repeats an earlier one (iVGR, arXiv 2605.31096)


def box_recall(attempt: Attempt) -> float | None:
    """The best IoU that each of the row's boxes has with a box written, averaged over the row's boxes: 0 to 1.

    0 without a box, None on rows without boxes. Half of TreeVGR's reward (arXiv 2507.07999). Alone it is won by boxes all
    over the picture: there the policy listed boxes up to the token limit and answered nothing.
    """
    return _best_ious(attempt, of_row=True)


def box_precision(attempt: Attempt) -> float | None:
    """The best IoU that each box written has with a box of the row, averaged over the boxes written: 0 to 1.

    0 without a box, None on rows without boxes. The other half of TreeVGR's reward (arXiv 2507.07999). Alone it is won by
    the one box that is surest, whatever else there is to point at.
    """
    return _best_ious(attempt, of_row=False)


def box_dual(attempt: Attempt) -> float | None:
    """The mean of `box_recall` and `box_precision`, 0 to 1: TreeVGR's and iVGR's reward of boxes; None on rows without boxes."""
    recall, precision = box_recall(attempt), box_precision(attempt)
    return None if recall is None or precision is None else (recall + precision) / 2


def box_f1(attempt: Attempt) -> float | None:
    """F1 of the boxes at IoU 0.5, 0 to 1, after one-to-one matching by the largest sum of IoUs (Rex-Thinker's, CGPO's).

    0 without a box; None where the row's boxes cannot be matched one to one: it has none, or counts to another number.
    """
    if not boxes_are_one_to_one(attempt.example):
        return None
    return match(_written(attempt), attempt.example.boxes, threshold=0.5).f1


def box_valid(attempt: Attempt) -> float | None:
    """The share of the boxes that repeat no earlier box of their section, 0 to 1 (iVGR, arXiv 2605.31096).

    A box repeats another where their IoU is above 0.9. The same box while thinking and while rethinking names one thing
    twice, as the format means it, and is no repetition. 0 without a box, None on rows that count to 0.
    """
    example = attempt.example
    if is_counting(example) and 0 in example.counts:
        return None
    sections: dict[object, list[Box]] = {}
    for pointing in attempt.transcript.pointings:
        sections.setdefault(pointing.section, []).append(pointing.box)
    written = sum(len(boxes) for boxes in sections.values())
    return sum(map(_without_repetition, sections.values())) / written if written else 0.0


def _without_repetition(boxes: list[Box]) -> int:
    ious = pairwise_iou(boxes, boxes)
    return sum(not (ious[place, :place] > NEAR_DUPLICATE).any() for place in range(len(boxes)))


def _best_ious(attempt: Attempt, *, of_row: bool) -> float | None:
    if not attempt.example.boxes:
        return None
    written = _written(attempt)
    if not written:
        return 0.0
    best = pairwise_iou(written, attempt.example.boxes).max(axis=0 if of_row else 1)
    return math.fsum(best) / len(best)


def _written(attempt: Attempt) -> tuple[Box, ...]:
    return tuple(dict.fromkeys(attempt.transcript.boxes))


_BOXES = frozenset({Requirement.BOXES})
OVERLAP_REWARDS: dict[Reward, RewardSpec] = {
    box_recall: RewardSpec(0.0, 1.0, _BOXES),
    box_precision: RewardSpec(0.0, 1.0, _BOXES),
    box_dual: RewardSpec(0.0, 1.0, _BOXES),
    box_f1: RewardSpec(0.0, 1.0, frozenset({Requirement.COUNTABLE_BOXES})),
    box_valid: RewardSpec(0.0, 1.0),
}
