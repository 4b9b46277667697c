"""Frames: what a family's numbers mean in the picture, and the numbers a family would write."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import ModelError, RecipeError
from opengrit.core.types import Rejection
from opengrit.grounding.frames import OVERSHOOT, UNIT_BY_MODEL_TYPE, Frame, Unit

SEEN = Size(504, 364)

sides = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] != pair[1])
boxes = st.builds(lambda xs, ys: Box(min(xs), min(ys), max(xs), max(ys)), sides, sides)
frames = st.builds(
    lambda unit, width, height: Frame(unit.value, Size(width, height), unit),
    st.sampled_from(Unit),
    st.integers(1, 4000),
    st.integers(1, 4000),
)


@pytest.mark.parametrize(
    ("model_type", "unit"),
    [
        ("qwen2_vl", Unit.THOUSAND),
        ("qwen2_5_vl", Unit.PIXELS),
        ("qwen3_vl", Unit.THOUSAND),
        ("qwen3_vl_moe", Unit.THOUSAND),
        ("internvl", Unit.THOUSAND),
        ("internvl_chat", Unit.THOUSAND),
    ],
)
def test_each_family_has_its_frame(model_type, unit):
    frame = Frame.for_model_type(model_type, seen_size=SEEN)

    assert (frame.name, frame.unit, frame.seen_size) == (model_type, unit, SEEN)


def test_every_known_family_is_named_in_the_table_above():
    assert len(UNIT_BY_MODEL_TYPE) == 6


@pytest.mark.parametrize("model_type", ["llava", "Qwen/Qwen2.5-VL-3B-Instruct", "InternVL", ""])
def test_an_unknown_model_type_is_an_error_that_lists_the_known_ones_and_the_way_out(model_type):
    """The released code takes the family from the model's path; a renamed folder breaks it (its bug 22)."""
    with pytest.raises(ModelError) as caught:
        Frame.for_model_type(model_type, seen_size=SEEN)

    message = str(caught.value)
    assert repr(model_type) in message
    assert "qwen2_5_vl" in message
    assert "frame: pixels, thousand, unit" in message


def test_a_recipe_can_name_the_frame():
    assert Frame.named("pixels", SEEN).extent == (504, 364)
    assert Frame.named("thousand", SEEN).extent == (1000, 1000)
    assert Frame.named("unit", SEEN).extent == (1, 1)
    with pytest.raises(RecipeError, match="'percent'"):
        Frame.named("percent", SEEN)


def test_pixels_are_those_of_the_seen_picture_and_reach_the_original_rescaled():
    """The released evaluation compares them with original pixels as they are (its bugs 16, 31 and 33)."""
    box = Frame.for_model_type("qwen2_5_vl", seen_size=SEEN).to_box((126, 91, 378, 273))

    assert box == Box(0.25, 0.25, 0.75, 0.75)
    assert box.to_pixels(Size(1000, 800)) == (250, 200, 750, 600)


def test_thousandths_do_not_depend_on_the_seen_size():
    small, large = (Frame.for_model_type("internvl", seen_size=size) for size in (Size(10, 20), SEEN))

    assert small.to_box((250, 100, 500, 1000)) == Box(0.25, 0.1, 0.5, 1.0)
    assert large.to_box((250, 100, 500, 1000)) == Box(0.25, 0.1, 0.5, 1.0)


@pytest.mark.parametrize(
    ("numbers", "box"),
    [
        ((-10, 0, 700, 700), Box(0, 0, 1, 1)),  # a tenth too far right and down
        ((320, 320, 641, 640), Box(0.5, 0.5, 1, 1)),
        ((-320, -320, 960, 960), Box(0, 0, 1, 1)),  # exactly as far as is tolerated
    ],
)
def test_a_box_slightly_over_the_edge_is_clipped(numbers, box):
    assert Frame.named("pixels", Size(640, 640)).to_box(numbers) == box


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((300, 0, 200, 100), Rejection.REVERSED),
        ((0, 100, 300, 100), Rejection.REVERSED),
        ((-50, 0, -10, 100), Rejection.NEGATIVE),
        ((0, -50, 100, 0), Rejection.NEGATIVE),
        ((640, 0, 700, 100), Rejection.OUT_OF_PICTURE),
        ((0, 650, 100, 700), Rejection.OUT_OF_PICTURE),
        ((0, 50, 55, 9999), Rejection.OUT_OF_PICTURE),
        ((0, 0, 961, 100), Rejection.OUT_OF_PICTURE),  # over 1.5 times the width
        ((-9999, 0, 100, 100), Rejection.OUT_OF_PICTURE),
        ((math.nan, 0, 1, 1), Rejection.NOT_FINITE),
        ((0, 0, math.inf, 1), Rejection.NOT_FINITE),
        ((1, 2, 3), Rejection.NOT_FOUR_NUMBERS),
        ((1, 2, 3, 4, 5, 6), Rejection.NOT_FOUR_NUMBERS),
    ],
)
def test_numbers_that_cannot_be_a_box_are_rejected_with_the_reason(numbers, reason):
    assert OVERSHOOT == 0.5
    assert Frame.named("pixels", Size(640, 640)).to_box(numbers) is reason


def test_the_family_writes_whole_numbers():
    box = Box(0.25, 0.1, 0.5, 1.0)

    assert Frame.for_model_type("qwen2_5_vl", seen_size=SEEN).from_box(box) == (126, 36, 252, 364)
    assert Frame.for_model_type("qwen3_vl", seen_size=SEEN).from_box(box) == (250, 100, 500, 1000)
    assert Frame.named("unit", SEEN).from_box(box) == (0.25, 0.1, 0.5, 1.0)
    assert all(isinstance(n, int) for n in Frame.named("pixels", SEEN).from_box(box))


def test_a_side_shorter_than_a_step_is_written_one_step_long():
    frame = Frame.named("thousand", SEEN)

    assert frame.from_box(Box(0.5, 0.9999, 0.5001, 1.0)) == (500, 999, 501, 1000)


def test_a_widened_side_stays_within_one_step_of_the_true_one():
    # Both ends round to 6 of 28 (5.516 and 5.544); the step from 5 to 6 holds them.
    assert Frame.named("pixels", Size(28, 28)).from_box(Box(0, 0.197, 1, 0.198)) == (0, 5, 28, 6)


@given(frames, boxes)
@example(Frame.named("pixels", Size(28, 28)), Box(0, 0.197, 1, 0.198))
def test_writing_a_box_and_reading_it_gives_it_back_within_one_step(frame, box):
    back = frame.to_box(frame.from_box(box))

    assert isinstance(back, Box)
    width, height = (1000, 1000) if frame.unit is Unit.UNIT else frame.extent
    for before, after, extent in (
        (box.left, back.left, width),
        (box.right, back.right, width),
        (box.top, back.top, height),
        (box.bottom, back.bottom, height),
    ):
        assert abs(before - after) <= 1 / extent + 1e-9


@given(frames, st.lists(st.floats(), max_size=6))
def test_no_numbers_make_a_frame_raise(frame, numbers):
    assert isinstance(frame.to_box(numbers), (Box, Rejection))
