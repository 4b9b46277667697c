"""A record as one flat row: the columns of CSV, Parquet, JSONL and the data frame."""

from __future__ import annotations

from typing import Any

from opengrit.converters.source import verdict_of
from opengrit.core.boxes import Box
from opengrit.core.types import Record, Unjudged
from opengrit.evaluation.metrics import follows_format, grounding_iou

# What each column holds; docs/records.md has the same list. Boxes are [left, top, right, bottom] in pixels of the picture.
COLUMNS = {
    "id": "the record's name, unique in its run",
    "step": "optimizer step it was sampled for; empty in an evaluation",
    "sample": "number of the sample of its question, from 0",
    "dataset": "data set of the row",
    "example": "the row's id in it",
    "split": "the row's split, where it has one",
    "image": "path of the picture, absolute where the picture is found",
    "width": "of the picture, pixels",
    "height": "of the picture, pixels",
    "question": "what was asked",
    "expected": "the annotated answer",
    "answer": "the model's answer; empty where it gave none",
    "verdict": "right, wrong or unjudged",
    "judge_score": "the judge's score, 0 to 1; empty where unjudged",
    "reward": "the weighted total; empty where it could not be scored",
    "advantage": "in training: the reward compared with its group",
    "grounding_iou": "union IoU of the boxes with the annotated ones, 0 to 1; empty where there is none to compare with",
    "follows_format": "1 where the text has the full format, else 0; empty for a failed rollout",
    "boxes": "boxes the model wrote, in order",
    "labels": "their labels, the same order; null for a box without one",
    "expected_boxes": "annotated boxes",
    "finish": "why the text ended: stop, eos, length or unknown",
    "tokens": "number of tokens sampled",
    "text": "everything the model wrote",
    "strategy": "the prompt's name",
    "failure": "why the rollout failed; empty where it came through",
    "unjudged": "why nobody judged it; empty where somebody did",
}
PARTS = "parts/"  # in front of each part of the reward: one more column each, unweighted


def flat(record: Record) -> dict[str, Any]:
    """The record's row: `COLUMNS`, then its reward's parts. Lists hold boxes and labels; None where there is nothing."""
    example, verdict = record.example, record.verdict
    unjudged = verdict.reason if isinstance(verdict, Unjudged) else None
    size = example.picture_size

    def pixels(box: Box) -> list[float]:
        return [round(edge, 2) for edge in box.to_pixels(size)]

    return {
        "id": record.id,
        "step": record.step,
        "sample": record.sample,
        "dataset": example.dataset,
        "example": example.id,
        "split": example.split,
        "image": example.image,
        "width": size.width,
        "height": size.height,
        "question": example.question,
        "expected": example.answer,
        "answer": record.transcript.answer,
        "verdict": verdict_of(record),
        "judge_score": None if isinstance(verdict, Unjudged) else verdict.score,
        "reward": record.score.total,
        "advantage": record.advantage,
        "grounding_iou": grounding_iou(record),
        "follows_format": follows_format(record),
        "boxes": [pixels(pointing.box) for pointing in record.transcript.pointings],
        "labels": [pointing.label for pointing in record.transcript.pointings],
        "expected_boxes": [pixels(box) for box in example.boxes],
        "finish": record.completion.finish.value,
        "tokens": len(record.completion.token_ids),
        "text": record.completion.text,
        "strategy": record.strategy,
        "failure": record.failure,
        "unjudged": unjudged,
        **{f"{PARTS}{name}": value for name, value in record.score.parts.items()},
    }
