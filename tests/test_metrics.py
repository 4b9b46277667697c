from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from fixtures_path import needs_fixtures, shared_rows
from opengrit.boxes import Box, Size
from opengrit.frames import Frame
from opengrit.metrics import (
    Estimate,
    Quantity,
    count_error,
    estimate,
    follows_format,
    full_format,
    grounding_iou,
    majority_answers,
    majority_control,
    mcnemar,
    num_boxes,
    paired_difference,
    raw_score,
    right,
    summarise,
    truncated,
    unjudged,
    whole_picture_iou,
    without_answer,
)
from opengrit.parsing import parse
from opengrit.types import Completion, Example, Finish, Record, Score, Unjudged, Verdict

SIZE = Size(1000, 1000)
FRAME = Frame.for_model_type("internvl", seen_size=SIZE)  # writes 0-1000
LEFT_HALF = Box(0.0, 0.0, 0.5, 1.0)
FULL = "<think>dog (0, 0, 500, 1000)</think><rethink>one dog</rethink><answer>1"


def row(
    example_id: str = "e",
    *,
    answer: str = "1",
    dataset: str = "stickers/count",
    question: str = "How many dogs are there?",
    boxes: tuple[Box, ...] = (LEFT_HALF,),
) -> Example:
    return Example(example_id, question, answer, "e.png", dataset, SIZE, boxes=boxes)


def record(
    example: Example | None = None,
    score: float | None = 1.0,
    *,
    text: str = FULL,
    sample: int = 0,
    finish: Finish = Finish.STOP,
    failure: str | None = None,
) -> Record:
    """A record judged with this score, 1 being right; a score of None is a judge's outage."""
    example = example or row()
    return Record(
        id=f"{example.id}#{sample}",
        example=example,
        strategy="grounded",
        sample=sample,
        completion=Completion(text, (), finish),
        transcript=parse(text, FRAME, finish),
        verdict=Unjudged("outage") if score is None else Verdict(score == 1.0, score),
        score=Score(None),
        seen_size=SIZE,
        frame="internvl",
        failure=failure,
    )


def scored(scores: list[float | None]) -> list[Record]:
    return [record(row(f"e{i}"), score) for i, score in enumerate(scores)]


# Accuracy


def test_accuracy_is_the_raw_score_and_right_is_binary() -> None:
    records = scored([1.0, 0.5, 0.0, 0.0])
    assert estimate(records, raw_score).value == pytest.approx(0.375)  # 1.5 / 4
    assert estimate(records, right).value == pytest.approx(0.25)


def test_an_outage_never_lowers_accuracy() -> None:
    judged = scored([1.0, 1.0, 0.0])
    with_outages = [*judged, record(row("x"), None), record(row("y"), None)]
    assert estimate(with_outages, right).value == estimate(judged, right).value == pytest.approx(2 / 3)
    assert estimate(with_outages, right).n == 3
    assert estimate(with_outages, unjudged).value == pytest.approx(2 / 5)


def test_a_failed_rollout_is_in_no_mean() -> None:
    failed = record(row("x"), 0.0, text="", failure="picture unreadable")
    quantities: list[Quantity] = [
        raw_score, right, grounding_iou, whole_picture_iou, follows_format, num_boxes, count_error, unjudged,
        without_answer, truncated,
    ]  # fmt: skip
    for quantity in quantities:
        assert quantity(failed) is None
        assert quantity(record()) is not None
    summary = summarise([record(), failed]).overall
    assert (summary.num_records, summary.num_failed, summary.right.n, summary.right.value) == (2, 1, 1, 1.0)


# Grounding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(0, 0, 500, 1000)", 1.0),
        ("(0, 0, 250, 1000) (250, 0, 500, 1000)", 1.0),  # two halves of the truth
        ("(0, 0, 500, 1000) (0, 0, 500, 1000)", 1.0),  # twice the same
        ("(0, 0, 1000, 1000)", 0.5),
        ("(0, 0, 500, 500)", 0.5),
        ("(250, 0, 750, 1000)", 1 / 3),  # a quarter shared of three quarters
        ("no box", 0.0),
        ("<think>(0, 0, 250, 1000)</think><answer>[250, 0, 500, 1000]", 1.0),  # boxes of every section count
    ],
)
def test_grounding_iou_compares_the_two_unions(text: str, expected: float) -> None:
    assert grounding_iou(record(text=text)) == pytest.approx(expected)


def test_rows_without_boxes_are_left_out_of_grounding_iou_and_of_its_control() -> None:
    records = [record(row("a")), record(row("b", boxes=()))]
    assert estimate(records, grounding_iou).n == estimate(records, whole_picture_iou).n == 1


def test_the_whole_picture_control_is_the_share_that_the_truth_covers() -> None:
    assert whole_picture_iou(record(text="no box")) == pytest.approx(0.5)


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "expected"), [("vsr_val", 0.588), ("tallyqa_val", 0.285), ("ovd_position_val", 0.152)]
)
def test_the_whole_picture_control_of_the_released_rows_is_the_known_one(name: str, expected: float) -> None:
    records = []
    for index, line in enumerate(shared_rows("grit_val", f"{name}.jsonl")):
        size = Size(line["width"], line["height"])
        boxes = tuple(Box.from_pixels(*numbers, size=size) for numbers in line["bboxs"])
        records.append(record(row(str(index), boxes=boxes)))
    assert estimate(records, whole_picture_iou).value == pytest.approx(expected, abs=0.001)


# Format, boxes, counts


@pytest.mark.parametrize("text", [FULL, FULL + "</answer>", "Sure. " + FULL])
def test_the_full_format_has_five_tags_in_order_a_box_and_an_answer(text: str) -> None:
    assert full_format(parse(text, FRAME))


@pytest.mark.parametrize(
    "text",
    [
        "",
        FULL.replace("</think>", ""),
        FULL.replace("<rethink>one dog</rethink>", ""),
        FULL.replace("(0, 0, 500, 1000)", "here"),
        FULL.replace("(0, 0, 500, 1000)", "").replace("one dog", "(0, 0, 500, 1000)"),
        FULL.replace("<answer>1", "<answer> "),
        FULL.replace("<answer>1", "1"),
        FULL + "<answer>2",
        "<think>" + FULL,
        "<rethink>a</rethink><think>(0, 0, 5, 5)</think><answer>1",
    ],
)
def test_a_missing_repeated_or_misplaced_part_is_not_the_full_format(text: str) -> None:
    assert not full_format(parse(text, FRAME))


def test_the_format_asks_for_a_box_only_where_there_is_something_to_point_at() -> None:
    without_box = FULL.replace("(0, 0, 500, 1000)", "")
    assert follows_format(record(row(), text=without_box)) == 0.0
    assert follows_format(record(row(boxes=()), text=without_box)) == 1.0
    assert follows_format(record(row(answer="0"), text=without_box)) == 1.0
    assert follows_format(record(row(answer="0"))) == 1.0


def test_boxes_are_counted_in_every_section_and_rejected_ones_in_none() -> None:
    text = "<think>(0, 0, 10, 10) (20, 20, 5, 5)</think><rethink>(0, 0, 10, 10)</rethink>"
    assert num_boxes(record(text=text)) == 2.0


@pytest.mark.parametrize(("answer", "expected"), [("1", 1.0), ("2", 0.0), ("5", 3.0), ("0", 2.0)])
def test_count_error_is_the_distance_of_the_boxes_in_the_thought_from_the_count(
    answer: str, expected: float
) -> None:
    text = "<think>(0, 0, 10, 10) (20, 20, 30, 30)</think><rethink>(0, 0, 10, 10)</rethink><answer>2"
    assert count_error(record(row(answer=answer), text=text)) == expected


def test_count_error_says_nothing_on_other_rows() -> None:
    assert count_error(record(row(answer="Yes", question="Is it?", dataset="vsr"))) is None


def test_truncated_and_answerless_completions_are_counted() -> None:
    cut = record(row("a"), 0.0, text="<think>dog", finish=Finish.LENGTH)
    blank = record(row("b"), 0.0, text="<answer> ")
    assert (truncated(cut), without_answer(cut)) == (1.0, 1.0)
    assert (truncated(blank), without_answer(blank)) == (0.0, 1.0)
    assert (truncated(record()), without_answer(record())) == (0.0, 0.0)


# The majority control


def test_the_majority_control_is_the_best_constant_answer_of_each_data_set() -> None:
    records = [
        *(
            record(row(f"a{i}", answer=answer, dataset="a"), 0.0)
            for i, answer in enumerate(["Yes", "yes", "No"])
        ),
        *(
            record(row(f"b{i}", answer=answer, dataset="b"), 0.0)
            for i, answer in enumerate(["3", "three", "1", "1"])
        ),
    ]
    assert majority_answers(r.example for r in records) == {
        "a": "yes",
        "b": "1",
    }  # in b a tie, "1" before "3"
    assert estimate(records, majority_control(records)).value == pytest.approx(4 / 7)  # 2 of 3 and 2 of 4


def test_the_majority_control_stands_on_the_judged_records_only() -> None:
    records = [
        record(row("a", answer="Yes"), 1.0),
        *(record(row(f"b{i}", answer="No"), None) for i in range(3)),
    ]
    control = estimate(records, majority_control(records))
    assert (control.value, control.n) == (1.0, 1)


# Intervals


def test_an_estimate_of_nothing_is_none_and_of_one_has_no_interval() -> None:
    assert estimate([], right) == Estimate(value=None, n=0, low=None, high=None)
    assert estimate([record()], right) == Estimate(value=1.0, n=1, low=None, high=None)


def test_the_interval_is_close_to_the_normal_one_for_many_examples() -> None:
    # 200 of 400 right: the standard error is sqrt(0.25 / 400) = 0.025, so about 0.5 - 0.049 to 0.5 + 0.049.
    result = estimate(scored([1.0, 0.0] * 200), right)
    assert (result.value, result.n) == (0.5, 400)
    assert result.low == pytest.approx(0.451, abs=0.006)
    assert result.high == pytest.approx(0.549, abs=0.006)


def test_samples_of_one_example_are_not_independent() -> None:
    # Ten samples of each of two examples: as wide as two examples are, not as narrow as twenty.
    records = [record(row(f"e{i}"), float(i), sample=s) for i in range(2) for s in range(10)]
    result = estimate(records, right)
    assert (result.value, result.n, result.low, result.high) == (0.5, 2, 0.0, 1.0)


def test_the_same_id_in_two_data_sets_is_two_examples() -> None:
    assert estimate([record(row("e", dataset="a")), record(row("e", dataset="b"))], right).n == 2


def test_shuffling_the_records_changes_nothing() -> None:
    records = [
        record(row(f"e{i}", dataset="ab"[i % 2], answer=str(i % 3)), (i * 7 % 11) / 10, sample=s)
        for i in range(30)
        for s in range(3)
    ]
    shuffled = random.Random(1).sample(records, len(records))
    assert [r.id for r in shuffled] != [r.id for r in records]
    assert summarise(shuffled) == summarise(records)
    half = [replace(r, verdict=Verdict(False, 0.0)) for r in records]
    other = random.Random(2).sample(half, len(half))
    assert paired_difference(half, records, raw_score) == paired_difference(other, shuffled, raw_score)


def test_the_generator_decides_the_interval_and_the_default_is_fixed() -> None:
    records = scored([0.1 * (i % 11) for i in range(50)])
    assert estimate(records, raw_score) == estimate(records, raw_score)
    other = estimate(records, raw_score, generator=np.random.default_rng(1))
    assert other.value == estimate(records, raw_score).value
    assert other != estimate(records, raw_score)


# Before and after


def test_the_paired_difference_is_over_examples_measured_on_both_sides() -> None:
    before = scored([0.0, 0.0, 1.0, None, 1.0])
    after = scored([1.0, 0.0, 1.0, 1.0, None])
    result = paired_difference(before, after, right)
    assert (result.value, result.n) == (pytest.approx(1 / 3), 3)  # +1, 0, 0


def test_a_change_common_to_all_examples_is_certain_however_much_they_differ() -> None:
    before = scored([0.1, 0.4, 0.7])
    after = scored([0.2, 0.5, 0.8])
    result = paired_difference(before, after, raw_score)
    assert result.value == pytest.approx(0.1)
    assert result.clear_of_zero
    assert not paired_difference(before, before, raw_score).clear_of_zero


def test_seeds_are_pooled_by_example() -> None:
    before = scored([0.0, 1.0])
    seeds = [scored([1.0, 1.0]), scored([0.0, 1.0]), scored([1.0, 0.0])]
    after = [r for seed in seeds for r in seed]
    result = paired_difference(before, after, right)
    # The first example goes from 0 to 2/3 and the second from 1 to 2/3.
    assert (result.value, result.n) == (pytest.approx((2 / 3 - 1 / 3) / 2), 2)
    assert result.low == pytest.approx(-1 / 3)
    assert result.high == pytest.approx(2 / 3)


def test_no_shared_example_is_no_difference_rather_than_zero() -> None:
    result = paired_difference([record(row("a"))], [record(row("b"))], right)
    assert (result.value, result.n) == (None, 0)


def test_mcnemar_is_the_exact_binomial_test_of_the_changed_answers() -> None:
    before = scored([0.0] * 6 + [1.0] * 5)
    after = scored([1.0] * 5 + [0.0] + [0.0] + [1.0] * 4)
    result = mcnemar(before, after)
    assert (result.improved, result.worsened) == (5, 1)
    # Two-sided, 6 changes: 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64
    assert result.p == pytest.approx(14 / 64)


def test_mcnemar_without_a_change_is_one() -> None:
    assert mcnemar(scored([1.0, 0.0]), scored([1.0, 0.0])).p == 1.0


def test_mcnemar_refuses_repeated_samples() -> None:
    with pytest.raises(ValueError, match="one record an example"):
        mcnemar([record(sample=0), record(sample=1)], [record()])


# Summaries


def test_a_summary_has_every_data_set_and_all_together() -> None:
    records = [
        record(row("a", dataset="a"), 1.0),
        record(row("b", dataset="a", answer="2"), None),
        record(row("c", dataset="b", question="Is it?", answer="Yes", boxes=()), 0.0, text="<answer>No"),
    ]
    summary = summarise(records)
    assert list(summary.by_dataset) == ["a", "b"]
    assert (summary.overall.dataset, summary.overall.num_records, summary.overall.num_examples) == (
        "all",
        3,
        3,
    )
    a, b = summary.by_dataset["a"], summary.by_dataset["b"]
    assert (a.num_records, a.num_unjudged, a.right.value, a.right.n) == (2, 1, 1.0, 1)
    assert (a.grounding_iou.value, a.whole_picture_iou.value) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (a.follows_format.value, a.boxes_per_answer.value) == (1.0, 1.0)
    assert a.count_error.value == pytest.approx(0.5)  # one box; true counts 1 and 2
    assert (b.right.value, b.grounding_iou.value, b.grounding_iou.n, b.count_error.n) == (0.0, None, 0, 0)
    assert summary.overall.right.value == pytest.approx(0.5)


def test_a_summary_of_no_records_is_empty_and_not_zero() -> None:
    summary = summarise([])
    assert summary.by_dataset == {}
    assert (summary.overall.num_records, summary.overall.right.value) == (0, None)
