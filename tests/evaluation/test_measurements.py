"""Columns of quantities give the estimates that records give, and look at each record once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from full_record import RECORD

from opengrit.core.boxes import Box
from opengrit.core.types import Finish, Record, Unjudged, Verdict
from opengrit.evaluation.metrics import (
    Estimate,
    Measurements,
    estimate,
    grounding_iou,
    paired_difference,
    raw_score,
    summarise,
)


def answers(seed: int, *, names: range, samples: int = 1) -> list[Record]:
    """Answers to rows of two data sets; a tenth are unjudged, and the boxes of a third are unknown."""
    dice = random.Random(seed)
    found = []
    for name in names:
        example = replace(
            RECORD.example,
            id=f"row-{name}",
            dataset="a" if name % 3 else "b",
            boxes=RECORD.example.boxes if name % 3 else (),
        )
        for sample in range(samples):
            left = dice.uniform(0.0, 0.2)
            box = replace(
                RECORD.transcript.pointings[0], box=Box(left, 0.1, left + dice.uniform(0.1, 0.5), 0.4)
            )
            score = dice.random()
            found.append(
                replace(
                    RECORD,
                    id=f"row-{name}#{sample}",
                    example=example,
                    sample=sample,
                    completion=replace(RECORD.completion, finish=Finish.STOP),
                    transcript=replace(RECORD.transcript, pointings=(box,)),
                    verdict=Unjudged("out") if dice.random() < 0.1 else Verdict(score > 0.5, score),
                )
            )
    dice.shuffle(found)
    return found


def same(found: Estimate, wanted: Estimate) -> bool:
    values = [(found.value, wanted.value), (found.low, wanted.low), (found.high, wanted.high)]
    return found.n == wanted.n and all(
        ours is theirs is None or ours == pytest.approx(theirs, abs=1e-12, rel=0) for ours, theirs in values
    )


@pytest.mark.parametrize("samples", [1, 3])
def test_means_and_differences_are_those_of_the_records(samples: int) -> None:
    first, later = (
        answers(1, names=range(0, 60), samples=samples),
        answers(2, names=range(20, 90), samples=samples),
    )
    ours, theirs = Measurements(first), Measurements(later)
    for quantity in (raw_score, grounding_iou):
        assert same(ours.estimate(quantity), estimate(first, quantity))
        assert same(ours.difference(theirs, quantity), paired_difference(first, later, quantity))
        for dataset in "ab":
            records = [[r for r in run if r.example.dataset == dataset] for run in (first, later)]
            parts = [one.parts(lambda example: example.dataset)[dataset] for one in (ours, theirs)]
            assert [len(part) for part in parts] == [len(part) for part in records]
            assert same(parts[0].estimate(quantity), estimate(records[0], quantity))
            assert same(parts[0].difference(parts[1], quantity), paired_difference(*records, quantity))
    assert ours.difference(Measurements(()), raw_score).n == 0


def test_the_order_of_records_changes_no_bit() -> None:
    records = answers(3, names=range(40), samples=3)
    assert summarise(records) == summarise(records[::-1])


def test_a_quantity_looks_at_each_record_once_however_many_parts_are_measured() -> None:
    records = answers(4, names=range(30))
    looks: Counter[str] = Counter()

    def counted(record: Record) -> float | None:
        looks[record.id] += 1
        return raw_score(record)

    whole = Measurements(records)
    whole.estimate(counted)
    for part in whole.parts(lambda example: example.dataset).values():
        part.estimate(counted)
        whole.difference(part, counted)
        for inner in part.parts(lambda example: example.id).values():
            inner.estimate(counted)
    assert looks == Counter(record.id for record in records)
