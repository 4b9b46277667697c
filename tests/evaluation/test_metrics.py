from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from fixtures_path import needs_fixtures, shared_rows
from full_record import record_of

from opengrit.core.boxes import WHOLE_PICTURE, Box, Size, moved_at_random
from opengrit.core.types import Example, Finish, Record, Score, Unjudged, Verdict
from opengrit.evaluation.metrics import (
    Estimate,
    Quantity,
    accuracy_plus,
    binarised,
    box_count_error,
    box_f1,
    count_error,
    detection_ap,
    estimate,
    follows_format,
    grounding_iou,
    kind_of_answer,
    majority_answers,
    majority_control,
    mcnemar,
    mme,
    num_boxes,
    paired_difference,
    pool_seeds,
    random_boxes_control,
    raw_score,
    right,
    summarise,
    summarise_by,
    target_iou,
    true_count,
    truncated,
    unjudged,
    unscaled_detection_ap,
    unscaled_grounding_iou,
    whole_picture_iou,
    without_answer,
    written_iou,
    yes_no,
)
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.rewards.format import full_format

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
    return record_of(
        example,
        parse(text, FRAME, finish),
        verdict=Unjudged("outage") if score is None else Verdict(score == 1.0, score),
        score=Score(None),
        frame="internvl",
        sample=sample,
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
        raw_score, right, binarised, grounding_iou, unscaled_grounding_iou, whole_picture_iou,
        random_boxes_control(), box_f1, box_count_error, follows_format, num_boxes, count_error, unjudged,
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


def test_a_difference_that_is_rounding_alone_is_none() -> None:
    before, after = scored([0.1] * 5), scored([0.1 + 0.2 - 0.2] * 5)
    result = paired_difference(before, after, raw_score)
    assert result.low is not None
    assert result.low > 0
    assert not result.clear_of_zero
    assert not result.above_zero
    assert not paired_difference(after, before, raw_score).below_zero


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


# GRIT's way of making a score binary


def test_a_score_above_zero_is_right_to_grits_trainer_and_not_to_the_judge() -> None:
    records = scored([1.0, 0.1, 0.0, None])
    assert [binarised(r) for r in records] == [1.0, 1.0, 0.0, None]
    assert [right(r) for r in records] == [1.0, 0.0, 0.0, None]


# Boxes one to one


TWO = (Box(0.0, 0.0, 0.2, 0.2), Box(0.5, 0.5, 0.7, 0.7))


@pytest.mark.parametrize(
    ("text", "f1", "miscounted"),
    [
        ("(0, 0, 200, 200) (500, 500, 700, 700)", 1.0, 0.0),
        ("(0, 0, 200, 200)", 2 / 3, 1.0),  # 1 hit of 1 + 2 boxes: 2 / 3
        ("(0, 0, 200, 200) (0, 0, 200, 200)", 2 / 3, 1.0),  # one box said twice is one box
        ("(0, 0, 200, 200) (500, 500, 700, 700) (800, 800, 900, 900)", 4 / 5, 1.0),
        ("(0, 0, 200, 100) (500, 500, 700, 590)", 1 / 2, 0.0),  # IoU 0.5 is a hit, 0.45 is none: 2 * 1 / 4
        ("(0, 0, 1000, 1000)", 0.0, 1.0),
        ("no box", 0.0, 2.0),
        ("<think>(0, 0, 200, 200)</think><answer>(500, 500, 700, 700)", 1.0, 0.0),
    ],
)
def test_boxes_are_matched_one_to_one_at_half_overlap(text: str, f1: float, miscounted: float) -> None:
    given = record(row(answer="2", boxes=TWO), text=text)
    assert box_f1(given) == pytest.approx(f1)
    assert box_count_error(given) == miscounted


@pytest.mark.parametrize(
    ("text", "recall", "precision"),
    [
        ("(0, 0, 200, 200) (500, 500, 700, 700)", 1.0, 1.0),
        ("(0, 0, 200, 200)", 1 / 2, 1.0),  # one target found, one not
        (
            "(0, 0, 200, 100) (0, 0, 200, 100)",
            1 / 4,
            1 / 2,
        ),  # half of one target; a box said twice is one box
        ("(0, 0, 200, 200) (500, 500, 700, 700) (800, 0, 900, 100) (800, 800, 900, 900)", 1.0, 1 / 2),
        ("no box", 0.0, 0.0),
    ],
)
def test_treebenchs_recall_stands_beside_the_precision_that_boxes_everywhere_cost(
    text: str, recall: float, precision: float
) -> None:
    of_treebench = record(row(dataset="treebench", boxes=TWO), text=text)
    assert target_iou(of_treebench) == pytest.approx(recall)
    assert written_iou(of_treebench) == pytest.approx(precision)
    other = record(row(boxes=TWO), text=text)
    assert (target_iou(other), written_iou(other)) == (None, None)


def test_a_box_around_a_group_is_matched_with_nothing() -> None:
    for answer in ("3", "1"):  # counts that the row's two boxes do not show
        group = record(row(answer=answer, boxes=TWO))
        assert (box_f1(group), box_count_error(group)) == (None, None)
    for boxes in ((), TWO):
        expected = None if not boxes else 0.0
        assert (
            box_f1(record(row(answer="Yes", question="Is it?", dataset="vsr", boxes=boxes), text=""))
            == expected
        )


# The released script


def qwen(text: str, example: Example, seen: Size) -> Record:
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=seen)
    given = record(example, text=text)
    return replace(given, transcript=parse(text, frame, Finish.STOP), seen_size=seen, frame="qwen2_5_vl")


def test_the_unscaled_variant_compares_two_frames_as_if_they_were_one() -> None:
    # The picture is 1000 x 1000, the model saw 500 x 500 and points at its left half rightly.
    given = qwen("(0, 0, 250, 500)", row(), Size(500, 500))
    assert grounding_iou(given) == 1.0
    assert unscaled_grounding_iou(given) == pytest.approx(0.25)  # 250 x 500 inside 500 x 1000
    same_size = qwen("(0, 0, 500, 1000)", row(), SIZE)
    assert unscaled_grounding_iou(same_size) == 1.0


def test_the_unscaled_variant_cuts_thousandths_to_whole_pixels() -> None:
    example = replace(row(), picture_size=Size(150, 100), boxes=(Box(0.0, 0.0, 0.5, 1.0),))
    given = record(example, text="(0, 0, 339, 999)")  # 50.85 and 99.9 pixels, cut to 50 and 99
    assert unscaled_grounding_iou(given) == pytest.approx(50 * 99 / (75 * 100))
    for frame, expected in (("thousand", 50 * 99 / 7500), ("unit", None)):
        assert unscaled_grounding_iou(replace(given, frame=frame)) == (
            None if expected is None else pytest.approx(expected)
        )


def test_the_released_script_knows_no_truncation_and_ours_does() -> None:
    cut = record(text="(0, 0, 500, 1000)", finish=Finish.LENGTH)
    assert (grounding_iou(cut), unscaled_grounding_iou(cut)) == (None, 1.0)


# OVDEval

TARGET = row(answer="[0, 0, 500, 1000]", question="Detect the dog", dataset="ovd_position")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0, 0, 500, 1000]", 1.0),
        ("[0, 0, 500, 1000] [600, 0, 700, 100]", 0.5),  # one of two
        ("[0, 0, 500, 720]", 0.5),  # IoU 0.72: five of the ten thresholds
        ("[0, 0, 500, 750]", 0.6),  # just the threshold is a hit
        ("[0, 0, 500, 720] [0, 0, 500, 600]", 0.25),
        ("[600, 0, 700, 100]", 0.0),
        ("nothing", 0.0),
    ],
)
def test_detection_ap_is_the_share_of_thresholds_over_the_number_of_boxes(text: str, expected: float) -> None:
    assert detection_ap(record(TARGET, text=text)) == pytest.approx(expected)
    assert unscaled_detection_ap(record(TARGET, text=text)) == pytest.approx(expected)  # 1000 x 1000 pixels


def test_detection_ap_says_nothing_where_words_are_asked_for_or_several_boxes_are_true() -> None:
    assert detection_ap(record()) is None
    assert detection_ap(record(replace(TARGET, boxes=TWO))) is None
    assert unscaled_detection_ap(record()) is None


def test_the_released_ap_takes_thousandths_for_pixels() -> None:
    small = replace(TARGET, picture_size=Size(100, 100))
    assert detection_ap(record(small, text="[0, 0, 500, 1000]")) == 1.0
    assert (
        unscaled_detection_ap(record(small, text="[0, 0, 500, 1000]")) == 0.0
    )  # 50 x 100 in 500 x 1000 is a hundredth


# Boxes at random places


def test_random_boxes_keep_their_sizes_and_know_no_order() -> None:
    control = random_boxes_control(seed=1)
    records = [record(row(f"e{i}"), text="(0, 0, 200, 1000)") for i in range(200)]
    first = estimate(records, control)
    assert first == estimate(records[::-1], random_boxes_control(seed=1))
    assert first != estimate(records, random_boxes_control(seed=2))
    # A box 0.2 wide starts evenly in 0 .. 0.8 and the truth is 0 .. 0.5: it is inside up to 0.3 (IoU 0.2 / 0.5), then
    # reaches over the edge by t - 0.3 until 0.5: IoU (0.5 - t) / (t + 0.2). The mean over t in 0 .. 0.8 is
    # (0.3 * 0.4 + integral) / 0.8 with integral = 0.7 ln(0.7 / 0.5) - 0.2.
    expected = (0.12 + 0.7 * np.log(0.7 / 0.5) - 0.2) / 0.8
    assert first.value == pytest.approx(expected, abs=0.02)


def test_random_boxes_earn_nothing_without_a_box_and_all_with_the_whole_picture() -> None:
    control = random_boxes_control()
    assert control(record(text="no box")) == 0.0
    assert control(record(text="(0, 0, 1000, 1000)")) == pytest.approx(0.5)  # it fits in one place only
    assert control(record(row(boxes=()))) is None
    with pytest.raises(ValueError, match="at least one move"):
        random_boxes_control(moves=0)


def test_moved_boxes_stay_in_the_picture_with_their_size() -> None:
    boxes = (Box(0.0, 0.0, 0.3, 1.0), WHOLE_PICTURE, Box(0.9, 0.9, 1.0, 1.0))
    for moved in (moved_at_random(boxes, np.random.default_rng(seed)) for seed in range(50)):
        for box, before in zip(moved, boxes, strict=True):
            assert box.right - box.left == pytest.approx(before.right - before.left)
            assert box.bottom - box.top == pytest.approx(before.bottom - before.top)


# Yes and no


def said(answer: str, *, expected: str, name: str, question: str = "Is it?", sample: int = 0) -> Record:
    example = row(name, answer=expected, question=question, dataset="pope_random", boxes=())
    return record(example, float(answer == expected), text=f"<answer>{answer}", sample=sample)


def test_f1_counts_yes_and_the_share_of_yes_counts_what_was_said() -> None:
    records = [
        *(said("Yes", expected="Yes", name=f"tp{i}") for i in range(3)),
        *(said("Yes", expected="No", name=f"fp{i}") for i in range(2)),
        said("No", expected="Yes", name="fn"),
        *(said("No", expected="No", name=f"tn{i}") for i in range(2)),
        said("perhaps", expected="Yes", name="neither"),
        said("perhaps", expected="No", name="neither too"),
    ]
    found = yes_no(records)
    assert found.n == 10
    assert found.precision.value == pytest.approx(3 / 5)
    assert found.recall.value == pytest.approx(3 / 5)  # the undecided one is missed
    assert found.f1.value == pytest.approx(3 / 5)
    assert (found.yes_share.value, found.neither_share.value) == (pytest.approx(0.5), pytest.approx(0.2))
    assert found.f1.low is not None
    assert found.f1.high is not None
    assert found.f1.low < 3 / 5 < found.f1.high


def test_other_answers_and_options_that_read_yes_are_not_yes_no_questions() -> None:
    choice = "Is it?\nChoices:\n(A) Yes\n(B) No"
    assert yes_no([said("A", expected="Yes", name="a", question=choice), record()]).n == 0
    assert yes_no([]).f1 == Estimate(value=None, n=0, low=None, high=None)


def test_a_ratio_without_a_denominator_does_not_exist() -> None:
    never = [said("No", expected="No", name=f"e{i}") for i in range(3)]
    found = yes_no(never)
    assert (found.precision.value, found.recall.value, found.f1.value, found.yes_share.value) == (
        None,
        None,
        None,
        0.0,
    )


def asked(number: int, answered: float | None, *, dataset: str = "mme_count", sample: int = 0) -> Record:
    example = replace(row(f"{dataset}:{number}", dataset=dataset), image=f"{number:06d}.png")
    return record(example, answered, sample=sample)


def test_accuracy_plus_asks_for_both_questions_of_a_picture() -> None:
    run = [
        asked(0, 1.0),
        asked(1, 1.0),
        asked(2, 1.0),
        asked(3, 0.0),
        asked(4, 0.0),
        asked(5, 0.0),
        asked(7, 1.0),
    ]
    found = accuracy_plus(run)
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3)  # the picture of 7 was asked about once
    assert accuracy_plus(run[::-1]) == found


def test_an_unjudged_answer_leaves_its_picture_out() -> None:
    found = accuracy_plus([asked(0, 1.0), asked(1, None), asked(2, 1.0), asked(3, 1.0)])
    assert (found.value, found.n) == (1.0, 1)


def test_two_questions_about_one_file_are_one_picture() -> None:
    run = [replace(r, example=replace(r.example, image="one.jpg")) for r in (asked(0, 1.0), asked(5, 0.0))]
    assert (accuracy_plus(run).value, accuracy_plus(run).n) == (0.0, 1)


def test_seeds_of_mme_are_pooled_by_picture_and_never_mixed() -> None:
    one, other = [asked(0, 1.0), asked(1, 0.0)], [asked(0, 0.0), asked(1, 1.0)]
    assert accuracy_plus(one, other).value == 0.0  # taken together each question is right once
    assert accuracy_plus(one, [asked(0, 1.0), asked(1, 1.0)]).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one by one"):
        accuracy_plus(one + other)


def test_mme_has_a_row_for_each_sub_task_and_one_for_all() -> None:
    run = [
        asked(0, 1.0),
        asked(1, 1.0),
        asked(0, 1.0, dataset="mme_color"),
        asked(1, 0.0, dataset="mme_color"),
    ]
    rows = mme([*run, record()])
    assert [(r.subtask, r.accuracy.value, r.accuracy_plus.value, r.score) for r in rows] == [
        ("mme_color", 0.5, 0.0, 50.0),
        ("mme_count", 1.0, 1.0, 200.0),
        ("all", 0.75, 0.5, 125.0),
    ]
    assert mme([record()]) == ()


# Seeds and categories


def test_seeds_are_pooled_and_shown_one_by_one() -> None:
    runs = [scored([1.0, 0.0]), scored([1.0, 1.0]), scored([0.0, None])]
    pooled = pool_seeds(runs, right)
    assert [seed.value for seed in pooled.seeds] == [0.5, 1.0, 0.0]
    assert pooled.pooled.value == pytest.approx((2 / 3 + 1 / 2) / 2)  # by example
    assert pooled.spread == pytest.approx(0.5)  # of 0.5, 1.0 and 0.0
    assert pool_seeds(runs[:1], right).spread is None


def test_a_table_by_category_covers_every_example_of_a_category_once() -> None:
    records = [
        record(row("a", answer="2"), 1.0),
        record(row("b", answer="10"), 0.0),
        record(row("c", answer="2"), 0.0),
        record(row("d", answer="Yes", question="Is it?", dataset="vsr"), 1.0),
    ]
    by_count = summarise_by(records, true_count)
    assert [(name, s.right.value, s.num_examples) for name, s in by_count.items()] == [
        ("02", 0.5, 2),
        ("10", 0.0, 1),
    ]
    assert by_count["10"].majority_answer.value == 0.0  # of its data set the most frequent is 2
    by_kind = summarise_by(records, kind_of_answer)
    assert [(name, s.num_records) for name, s in by_kind.items()] == [("number", 3), ("yes/no", 1)]


@pytest.mark.parametrize("kind", ["shares", "rare", "overlaps"])
def test_intervals_of_many_examples_are_those_of_the_bootstrap(kind):
    import numpy as np

    from opengrit.evaluation.metrics import mean_of
    from opengrit.evaluation.metrics.estimates import MANY_EXAMPLES

    dice = np.random.default_rng(7)
    n = MANY_EXAMPLES
    values = {
        "shares": (dice.random(n) < 0.6).astype(float),
        "rare": (np.arange(n) < 4).astype(float),
        "overlaps": np.where(dice.random(n) < 0.3, 0.0, dice.beta(3, 1, n)),
    }[kind]
    found = mean_of(values.tolist())
    means = np.array([values[np.random.default_rng(i).integers(0, n, n)].mean() for i in range(4000)])
    low, high = np.percentile(means, [2.5, 97.5])
    spread = means.std()
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    near = (
        1.01 / n if kind == "rare" else 0.15 * spread
    )  # of a few examples the ends are whole numbers of them
    assert (found.low, found.high) == (pytest.approx(low, abs=near), pytest.approx(high, abs=near))
