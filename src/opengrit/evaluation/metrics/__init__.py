"""Accuracy, grounding IoU, format and their controls over records, each with n and a 95 % interval.

A *quantity* maps a record to a number, or to None where it says nothing about that record. Failed rollouts
(`record.failure`) are None for every quantity and are counted apart; an unjudged answer is None for accuracy. So an
outage makes n smaller and the interval wider, and never a mean lower. A truncated completion is None for what it
would have come to (accuracy, boxes) and is counted by `truncated`; it does not follow the format.

Means and intervals count examples, not records: several samples, or several training seeds, of one example are
averaged first, and the bootstrap samples examples with replacement.
"""

from __future__ import annotations

from opengrit.evaluation.metrics.controls import (
    majority_answers,
    majority_control,
    random_boxes_control,
    whole_picture_iou,
)
from opengrit.evaluation.metrics.estimates import (
    BOOTSTRAP_SEED,
    Estimate,
    McNemar,
    Pooled,
    Quantity,
    estimate,
    mean_of,
    paired_difference,
    pool_seeds,
)
from opengrit.evaluation.metrics.measurements import Measurements, measured
from opengrit.evaluation.metrics.quantities import (
    binarised,
    box_count_error,
    box_f1,
    box_precision,
    box_recall,
    count_error,
    covered_area,
    follows_format,
    grounding_iou,
    is_measured,
    mcnemar,
    num_boxes,
    raw_score,
    reply_tokens,
    right,
    target_iou,
    truncated,
    unjudged,
    without_answer,
    written_iou,
)
from opengrit.evaluation.metrics.released import (
    detection_ap,
    unscaled_detection_ap,
    unscaled_grounding_iou,
)
from opengrit.evaluation.metrics.summaries import (
    DatasetSummary,
    kind_of_answer,
    summarise,
    summarise_by,
    true_count,
)
from opengrit.evaluation.metrics.yes_no import accuracy_plus, mme, yes_no

__all__ = [
    "BOOTSTRAP_SEED",
    "DatasetSummary",
    "Estimate",
    "McNemar",
    "Measurements",
    "Pooled",
    "Quantity",
    "accuracy_plus",
    "binarised",
    "box_count_error",
    "box_f1",
    "box_precision",
    "box_recall",
    "count_error",
    "covered_area",
    "detection_ap",
    "estimate",
    "follows_format",
    "grounding_iou",
    "is_measured",
    "kind_of_answer",
    "majority_answers",
    "majority_control",
    "mcnemar",
    "mean_of",
    "measured",
    "mme",
    "num_boxes",
    "paired_difference",
    "pool_seeds",
    "random_boxes_control",
    "raw_score",
    "reply_tokens",
    "right",
    "summarise",
    "summarise_by",
    "target_iou",
    "true_count",
    "truncated",
    "unjudged",
    "unscaled_detection_ap",
    "unscaled_grounding_iou",
    "whole_picture_iou",
    "without_answer",
    "written_iou",
    "yes_no",
]
