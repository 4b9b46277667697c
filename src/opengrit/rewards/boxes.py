"""Rewards of the boxes: that there are some, that there are as many as things, that they lie where they should.

A new reward is a function here and its entry in `BOX_REWARDS`.
"""

from __future__ import annotations

from opengrit.core.boxes import union_iou
from opengrit.core.types import Tag, is_counting
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec


def points_before_rethinking(attempt: Attempt) -> float:
    """1 if the thought names at least one box, else 0 (s_bf in the paper, which weighs it 0.5)."""
    return float(bool(attempt.transcript.thought_pointings))


def box_count(attempt: Attempt) -> float | None:
    """1 if the thought names as many boxes as the true count, else 0; None on rows that count nothing.

    This is r_count in the paper, which weighs it 0.5. On a row whose count is 0 it pulls against
    `points_before_rethinking`, and the paper's formula is a tie there. A text without a thought earns nothing.
    """
    if not is_counting(attempt.example):
        return None
    transcript = attempt.transcript
    return float(
        transcript.thought is not None and len(transcript.thought_pointings) in attempt.example.counts
    )


def boxes_before_rethink_tag(attempt: Attempt) -> float:
    """Half for a box before the first rethink tag, and 1 more on counting rows if as many as the count; 0 to 1.5.

    In the released code's own units; 0 without a rethink tag. On a row whose count is 0, no box earns 1 and a box
    earns 0.5. Whether a row counts is read from that row, where the official code reads it from the first row of the
    batch; coordinates that cannot be a box are not boxes here.
    """
    transcript = attempt.transcript
    rethink = next((found for found in transcript.tags if found.tag is Tag.RETHINK_OPEN), None)
    if rethink is None:
        return 0.0
    boxes = sum(pointing.end <= rethink.start for pointing in transcript.pointings)
    return 0.5 * (boxes >= 1) + 1.0 * (is_counting(attempt.example) and boxes in attempt.example.counts)


def grounding_iou(attempt: Attempt) -> float | None:
    """Area shared by the union of the boxes written and the union of the row's boxes, over the area of both: 0 to 1.

    None on rows without boxes. The paper measures this and never rewards it. One box over the whole picture earns
    the share of the picture that the true boxes cover.
    """
    if not attempt.example.boxes:
        return None
    return union_iou(attempt.transcript.boxes, attempt.example.boxes)


BOX_REWARDS: dict[Reward, RewardSpec] = {
    points_before_rethinking: RewardSpec(0.0, 1.0),
    box_count: RewardSpec(0.0, 1.0, frozenset({Requirement.COUNTS})),
    boxes_before_rethink_tag: RewardSpec(0.0, 1.5),
    grounding_iou: RewardSpec(0.0, 1.0, frozenset({Requirement.BOXES})),
}
