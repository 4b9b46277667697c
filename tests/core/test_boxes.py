"""Boxes, unions and matching, against values worked out by hand and the shared overlap cases."""

from __future__ import annotations

import json
import math

import pytest
from fixtures_path import needs_fixtures, shared
from hypothesis import given
from hypothesis import strategies as st

from opengrit.core.boxes import (
    WHOLE_PICTURE,
    Box,
    Size,
    box_iou,
    match,
    pairwise_iou,
    union_area,
    union_iou,
)

# The overlap cases are in pixels of no particular picture. A power of two that holds them all keeps the
# quotients exact, so that an IoU of exactly one half stays one.
CANVAS = Size(1024, 1024)

grid = st.integers(0, 8)
boxes = st.builds(
    lambda xs, ys: Box(min(xs) / 8, min(ys) / 8, max(xs) / 8, max(ys) / 8),
    st.sets(grid, min_size=2, max_size=2),
    st.sets(grid, min_size=2, max_size=2),
)


def cells(some: list[Box]) -> set[tuple[int, int]]:
    """The cells of an 8 x 8 grid that boxes on that grid cover."""
    return {
        (x, y)
        for box in some
        for x in range(round(box.left * 8), round(box.right * 8))
        for y in range(round(box.top * 8), round(box.bottom * 8))
    }


def on_canvas(rows: list[list[float]]) -> list[Box]:
    return [Box.from_pixels(*row, size=CANVAS) for row in rows]


def overlap_cases() -> list[dict]:
    path = shared("iou_cases.json")
    return json.loads(path.read_text(encoding="utf-8"))["cases"] if path.is_file() else []


@needs_fixtures
def test_the_shared_overlap_cases_are_there():
    assert len(overlap_cases()) == 17


@pytest.mark.parametrize("case", overlap_cases(), ids=lambda case: case["name"])
def test_union_iou_agrees_with_the_shared_cases(case):
    assert union_iou(on_canvas(case["pred"]), on_canvas(case["truth"])) == pytest.approx(
        case["union_iou"], abs=1e-6
    )


@pytest.mark.parametrize("case", overlap_cases(), ids=lambda case: case["name"])
def test_matching_agrees_with_the_shared_cases(case):
    matching = match(on_canvas(case["pred"]), on_canvas(case["truth"]))

    assert matching.num_hits == case["tp50"]
    if case["matched_mean"] is None:
        assert matching.mean_iou is None
    else:
        assert matching.mean_iou == pytest.approx(case["matched_mean"], abs=1e-6)


def test_a_box_is_a_share_of_its_picture():
    box = Box.from_pixels(10, 20, 30, 60, size=Size(100, 200))

    assert box == Box(0.1, 0.1, 0.3, 0.3)
    assert box.area == pytest.approx(0.04)  # 0.2 wide, 0.2 high
    assert box.to_pixels(Size(50, 400)) == pytest.approx((5, 40, 15, 120))


def test_pixels_outside_the_picture_are_clipped():
    assert Box.from_pixels(-5, 50, 120, 250, size=Size(100, 200)) == Box(0.0, 0.25, 1.0, 1.0)


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ((30, 20, 10, 60), "left < right"),
        ((100, 0, 120, 50), "overlaps its picture"),
        ((math.nan, 0, 1, 1), "finite"),
        ((0, 0, math.inf, 1), "finite"),
    ],
)
def test_pixels_that_leave_no_area_are_an_error(numbers, why):
    with pytest.raises(ValueError, match=why):
        Box.from_pixels(*numbers, size=Size(100, 200))


def test_overlaps_count_once_in_the_union():
    # Two boxes of 1/4 each that share 1/16.
    first, second = Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.75, 0.75)

    assert union_area([first, second]) == pytest.approx(7 / 16)
    assert union_area([first, first]) == pytest.approx(1 / 4)
    assert union_area([WHOLE_PICTURE, first]) == 1.0
    assert union_area([]) == 0.0


def test_two_empty_lists_agree_and_one_empty_list_agrees_with_nothing():
    assert union_iou([], []) == 1.0
    assert union_iou([WHOLE_PICTURE], []) == 0.0
    assert union_iou([], [WHOLE_PICTURE]) == 0.0


def test_the_union_hides_a_spurious_box_inside_a_true_one_and_the_count_error_shows_it():
    truth, spurious = Box(0, 0, 0.5, 0.5), Box(0.1, 0.1, 0.2, 0.2)

    assert union_iou([truth, spurious], [truth]) == pytest.approx(1.0)
    assert match([truth, spurious], [truth]).count_error == 1


def test_boxes_that_only_touch_do_not_overlap():
    assert box_iou(Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)) == 0.0
    assert union_iou([Box(0, 0, 0.5, 1)], [Box(0.5, 0, 1, 1)]) == 0.0


def test_boxes_too_small_for_an_area_do_not_divide_by_zero():
    speck, other = Box(0, 0, 1e-300, 1e-300), Box(0.5, 0.5, 0.5 + 1e-9, 0.5 + 1e-9)

    assert box_iou(speck, speck) == 0.0
    assert union_iou([speck], [other]) == 0.0


def test_matching_takes_the_best_sum_and_not_the_first_come():
    # The first prediction overlaps both truths, the second only the first: greed would leave one without a partner.
    truth = [Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)]
    predicted = [Box(0.2, 0, 0.8, 1), Box(0, 0, 0.4, 1)]

    matching = match(predicted, truth)

    # Overlaps with the two truths: first 0.3/0.8 each; second 0.4/0.5 and none.
    assert matching.pairs == ((0, 1), (1, 0))
    assert matching.ious == pytest.approx((0.375, 0.8))
    assert matching.num_hits == 1
    assert (matching.precision, matching.recall, matching.f1) == (0.5, 0.5, 0.5)
    assert matching.count_error == 0


def test_an_iou_of_exactly_the_threshold_is_a_hit_despite_rounding():
    # 0.1 x 1 inside 0.2 x 1, in numbers that binary fractions cannot hold.
    assert match([Box(0.1, 0, 0.2, 1)], [Box(0.1, 0, 0.3, 1)]).num_hits == 1


def test_what_has_no_denominator_is_none():
    nothing = match([], [])
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.mean_iou) == (None, None, None, None)
    assert (match([WHOLE_PICTURE], []).recall, match([WHOLE_PICTURE], []).f1) == (None, 0.0)
    assert (match([], [WHOLE_PICTURE]).precision, match([], [WHOLE_PICTURE]).count_error) == (None, -1)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_outside_its_range_is_an_error(threshold):
    with pytest.raises(ValueError, match="threshold"):
        match([], [], threshold=threshold)


@given(st.lists(boxes, max_size=5), st.lists(boxes, max_size=5))
def test_union_iou_counts_what_a_grid_counts(predicted, truth):
    ours, theirs = cells(predicted), cells(truth)
    expected = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0

    assert union_iou(predicted, truth) == pytest.approx(expected, abs=1e-9)
    assert union_iou(truth, predicted) == pytest.approx(expected, abs=1e-9)
    assert union_area(predicted) == pytest.approx(len(ours) / 64, abs=1e-9)


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4))
def test_the_table_of_overlaps_holds_the_overlap_of_each_pair(predicted, truth):
    table = pairwise_iou(predicted, truth)

    assert table.shape == (len(predicted), len(truth))
    for row, ours in enumerate(predicted):
        for column, theirs in enumerate(truth):
            assert table[row, column] == pytest.approx(box_iou(ours, theirs))


def test_two_single_boxes_overlap_to_the_bit_as_unions_do():
    import random

    from opengrit.core.boxes import covered_area, iou_of_unions

    dice = random.Random(3)
    for _ in range(500):
        one, other = (
            (a, b, a + dice.random(), b + dice.random())
            for a, b in ((dice.random(), dice.random()) for _ in range(2))
        )
        shared = covered_area(
            [(max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))]
        )
        together = covered_area([one]) + covered_area([other]) - shared
        assert iou_of_unions([one], [other]) == (min(shared / together, 1.0) if shared > 0.0 else 0.0)
