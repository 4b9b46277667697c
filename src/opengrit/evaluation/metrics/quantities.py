"""Quantities of one record: a number, or None where it says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from opengrit.core.boxes import Box, match, pairwise_iou, union_area, union_iou
from opengrit.core.types import Finish, Record, Verdict, boxes_are_one_to_one, is_counting
from opengrit.evaluation.metrics.estimates import ExampleKey, McNemar, exact_mcnemar, key_of
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.format import keeps_format

_TREEBENCH = "treebench"  # the data set of its rows


def is_measured(record: Record) -> bool:
    """Whether the rollout came through: its picture could be read and its sampler answered."""
    return record.failure is None


def is_complete(record: Record) -> bool:
    """Whether the rollout came through and was not cut off at the token limit."""
    return is_measured(record) and record.completion.finish is not Finish.LENGTH


# The answer.


def raw_score(record: Record) -> float | None:
    """The judge's score, 0 to 1: the paper's accuracy. None if unjudged."""
    return record.verdict.score if is_measured(record) and isinstance(record.verdict, Verdict) else None


def right(record: Record) -> float | None:
    """1 if the judge takes the answer for right, else 0. None if unjudged."""
    if not is_measured(record) or not isinstance(record.verdict, Verdict):
        return None
    return float(record.verdict.correct)


def binarised(record: Record) -> float | None:
    """1 if the judge's score is above 0, else 0: how GRIT's released trainer makes a score binary.

    An answer that is a tenth right counts as right here, so this is never below the raw score. The paper's tables
    are not binarised (its authors say so); figures that users of the release report often are. None if unjudged.
    """
    score = raw_score(record)
    return None if score is None else float(score > 0.0)


def reply_tokens(record: Record) -> float | None:
    """How many tokens the reply has; None where they are not known (an endpoint's reply)."""
    tokens = record.completion.token_ids
    return float(len(tokens)) if is_measured(record) and tokens else None


# The boxes.


def grounding_iou(record: Record) -> float | None:
    """IoU of the union of all boxes written with the union of the row's boxes, 0 to 1 (the paper's GIoU).

    Boxes of every section count, each once, in the picture's own frame. 0 where no box is written, None where the
    row has no boxes.
    """
    if not is_complete(record) or not record.example.boxes:
        return None
    return union_iou(record.transcript.boxes, record.example.boxes)


def covered_area(record: Record) -> float | None:
    """The share of the picture that the boxes written cover together, 0 to 1. None where no box is written."""
    if not is_complete(record) or not record.transcript.boxes:
        return None
    return union_area(record.transcript.boxes)


def distinct_boxes(record: Record) -> int:
    """How many different boxes the transcript names: one repeated while rethinking counts once."""
    return len(dict.fromkeys(record.transcript.boxes))


def box_f1(record: Record) -> float | None:
    """F1 of the boxes at IoU 0.5, 0 to 1, after one-to-one matching by the largest sum of IoUs (Hungarian method).

    The different boxes of every section are predicted. None where the row's boxes cannot be matched one to one.
    """
    if not is_complete(record) or not boxes_are_one_to_one(record.example):
        return None
    predicted = tuple(dict.fromkeys(record.transcript.boxes))
    return match(predicted, record.example.boxes, threshold=0.5).f1


def box_recall(record: Record) -> float | None:
    """The mean over the row's boxes of the best IoU with a box that is written, 0 to 1 (TreeBench's "mIoU").

    0 where none is written, None where the row has no boxes. Listing many boxes raises it: read it beside `box_precision`.
    """
    if not is_complete(record) or not record.example.boxes:
        return None
    return _mean_best_iou(record.example.boxes, record.transcript.boxes)


def box_precision(record: Record) -> float | None:
    """The mean over the different boxes that are written of the best IoU with a box of the row, 0 to 1 (TreeVGR's other half).

    0 where none is written, None where the row has no boxes.
    """
    if not is_complete(record) or not record.example.boxes:
        return None
    return _mean_best_iou(tuple(dict.fromkeys(record.transcript.boxes)), record.example.boxes)


def _mean_best_iou(boxes: Sequence[Box], others: Sequence[Box]) -> float:
    if not boxes or not others:
        return 0.0
    return float(pairwise_iou(boxes, others).max(axis=1).mean())


def box_count_error(record: Record) -> float | None:
    """How far the number of different boxes is from the number annotated, in boxes.

    None where the row's boxes cannot be matched one to one.
    """
    if not is_complete(record) or not boxes_are_one_to_one(record.example):
        return None
    return float(abs(distinct_boxes(record) - len(record.example.boxes)))


def target_iou(record: Record) -> float | None:
    """TreeBench's IoU, 0 to 1: each target's largest IoU with a box written, averaged over the targets. Recall alone.

    A hundred boxes all over the picture raise it, so it is shown with `written_iou` only. The different boxes of every section
    count. 0 where no box is written, None on rows that are not TreeBench's (arXiv 2507.07999).
    """
    return box_recall(record) if record.example.dataset == _TREEBENCH else None


def written_iou(record: Record) -> float | None:
    """The other half of `target_iou`, 0 to 1: each different box written with its largest IoU with a target, averaged over those written.

    0 where no box is written, None on rows that are not TreeBench's.
    """
    return box_precision(record) if record.example.dataset == _TREEBENCH else None


def num_boxes(record: Record) -> float | None:
    """How many boxes the transcript names, in every section; rejected ones do not count."""
    return float(len(record.transcript.boxes)) if is_complete(record) else None


def count_error(record: Record) -> float | None:
    """How far the number of boxes in the thought is from the (nearest accepted) count; None on rows that count nothing.

    Boxes repeated while rethinking or answering are left out, as they name the same things again.
    """
    example = record.example
    if not is_complete(record) or not is_counting(example):
        return None
    return float(min(abs(len(record.transcript.thought_pointings) - count) for count in example.counts))


# The format.


def follows_format(record: Record) -> float | None:
    """1 if the transcript has the full format, else 0.

    A box is asked for where the row has boxes and does not count to 0; elsewhere the tags and an answer are enough,
    because there may be nothing to point at.
    """
    if not is_measured(record):
        return None
    return float(keeps_format(record.example, record.transcript))


# What could not be measured.


def unjudged(record: Record) -> float | None:
    """1 if there is no verdict, else 0.

    None for a truncated completion, which is counted as that, and where the expected answer is a box, which no judge
    is asked about.
    """
    if not is_complete(record) or is_box_answer(record.example.answer):
        return None
    return float(not isinstance(record.verdict, Verdict))


def without_answer(record: Record) -> float | None:
    """1 if the transcript has no answer or a blank one, else 0."""
    return float(not (record.transcript.answer or "").strip()) if is_measured(record) else None


def truncated(record: Record) -> float | None:
    """1 if the completion ran into the token limit, else 0."""
    return float(record.completion.finish is Finish.LENGTH) if is_measured(record) else None


# Right and wrong, before and after.


def mcnemar(before: Sequence[Record], after: Sequence[Record]) -> McNemar:
    """The exact McNemar test of right and wrong answers, on the examples judged on both sides.

    p is 1 when no example changed. Raises ValueError unless a side has at most one judged record an example, since
    repeated samples of one example are not independent.
    """
    return exact_mcnemar(_one_each(before), _one_each(after))


def _one_each(records: Sequence[Record]) -> dict[ExampleKey, float]:
    values: dict[ExampleKey, float] = {}
    for record in records:
        value = right(record)
        if value is None:
            continue
        key = key_of(record.example)
        if key in values:
            raise ValueError(
                f"McNemar's test takes one record an example, got several of {key[1]!r} in data set {key[0]!r}; "
                f"hand over one sample of one seed"
            )
        values[key] = value
    return values
