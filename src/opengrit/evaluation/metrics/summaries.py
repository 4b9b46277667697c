"""Every quantity at once: overall, by data set, and by any category of example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opengrit.core.types import Example, Record, is_counting
from opengrit.evaluation.metrics.controls import random_boxes_control, whole_picture_iou
from opengrit.evaluation.metrics.estimates import BOOTSTRAP_SEED, Estimate, Quantity
from opengrit.evaluation.metrics.measurements import Measurements
from opengrit.evaluation.metrics.quantities import (
    binarised,
    box_count_error,
    box_f1,
    count_error,
    follows_format,
    grounding_iou,
    is_measured,
    num_boxes,
    raw_score,
    right,
    target_iou,
    truncated,
    unjudged,
    without_answer,
    written_iou,
)
from opengrit.evaluation.metrics.released import detection_ap, unscaled_detection_ap, unscaled_grounding_iou
from opengrit.judges.answers import answer_kind


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What the records of one data set, or of all together, say. Shares and scores are 0 to 1.

    `num_failed` rollouts are in `num_records` and in nothing else; `num_unjudged` have no verdict.
    """

    dataset: str
    num_records: int
    num_examples: int
    num_failed: int
    num_unjudged: int
    accuracy: Estimate  # the judge's raw score
    right: Estimate  # the score made binary by the judge
    binarised: Estimate  # the score made binary as GRIT's trainer does: above 0
    majority_answer: Estimate  # control for accuracy
    grounding_iou: Estimate
    whole_picture_iou: Estimate  # control for grounding IoU
    random_boxes_iou: Estimate  # control for grounding IoU
    unscaled_iou: Estimate  # grounding IoU as the released script computes it
    box_f1: Estimate
    target_iou: Estimate  # TreeBench rows: recall, never shown without the next
    written_iou: Estimate  # TreeBench rows: precision
    box_count_error: Estimate  # boxes
    detection_ap: Estimate  # OVDEval rows
    unscaled_detection_ap: Estimate  # the same as the released script computes it
    follows_format: Estimate
    boxes_per_answer: Estimate
    count_error: Estimate  # boxes
    unjudged: Estimate
    without_answer: Estimate
    truncated: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """All records together ("all"), and each data set by name in alphabetical order."""

    overall: DatasetSummary
    by_dataset: dict[str, DatasetSummary]


def summarise(records: Sequence[Record], *, seed: int = BOOTSTRAP_SEED) -> Summary:
    """Every quantity of this package, overall and by data set. The order of the records does not matter.

    The records are those of one model under one prompt. Each interval starts its own generator from the seed, so it
    does not depend on which others are computed.
    """
    whole = Measurements(records)
    return Summary(
        overall=_summary("all", whole, whole, seed=seed),
        by_dataset=summarise_by(whole, lambda example: example.dataset, seed=seed),
    )


def summarise_by(
    records: Sequence[Record] | Measurements,
    category: Callable[[Example], str | None],
    *,
    seed: int = BOOTSTRAP_SEED,
) -> dict[str, DatasetSummary]:
    """Every quantity for each category of example, in alphabetical order; examples of category None are left out.

    The majority answer stays each data set's own, whatever the category: it is chosen once, as a model would have to.
    """
    whole = Measurements.of(records)
    return {name: _summary(name, part, whole, seed=seed) for name, part in whole.parts(category).items()}


def kind_of_answer(example: Example) -> str:
    """A category: what the expected answer is: yes/no, number, option, list, text or box."""
    return answer_kind(example.answer, example.question).value


def true_count(example: Example) -> str | None:
    """A category: the number to count, two digits wide so that names sort as numbers; None on other rows."""
    return f"{example.count:02d}" if is_counting(example) else None


def _summary(name: str, part: Measurements, whole: Measurements, *, seed: int) -> DatasetSummary:
    random_boxes = whole.random_boxes if seed == BOOTSTRAP_SEED else random_boxes_control(seed=seed)

    def mean(quantity: Quantity) -> Estimate:
        return part.estimate(quantity, seed=seed)

    return DatasetSummary(
        dataset=name,
        num_records=len(part),
        num_examples=part.num_examples,
        num_failed=sum(not is_measured(record) for record in part.records),
        num_unjudged=int((part.column(unjudged) == 1.0).sum()),
        accuracy=mean(raw_score),
        right=mean(right),
        binarised=mean(binarised),
        majority_answer=mean(whole.majority),
        grounding_iou=mean(grounding_iou),
        whole_picture_iou=mean(whole_picture_iou),
        random_boxes_iou=mean(random_boxes),
        unscaled_iou=mean(unscaled_grounding_iou),
        box_f1=mean(box_f1),
        target_iou=mean(target_iou),
        written_iou=mean(written_iou),
        box_count_error=mean(box_count_error),
        detection_ap=mean(detection_ap),
        unscaled_detection_ap=mean(unscaled_detection_ap),
        follows_format=mean(follows_format),
        boxes_per_answer=mean(num_boxes),
        count_error=mean(count_error),
        unjudged=mean(unjudged),
        without_answer=mean(without_answer),
        truncated=mean(truncated),
    )
