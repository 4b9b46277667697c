"""Answerers whose score is plain arithmetic, run the whole way from a row to a figure.

Nothing of the metrics is used to work out what is expected: the rows are read as JSON, areas come from shapely and
shares from counting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import shapely
from fixtures_path import needs_fixtures, shared, shared_rows

from opengrit.core.boxes import Size
from opengrit.core.types import Completion, Finish, Record
from opengrit.data import load
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.metrics import (
    Estimate,
    box_f1,
    detection_ap,
    estimate,
    follows_format,
    grounding_iou,
    majority_control,
    mme,
    right,
    unscaled_detection_ap,
    unscaled_grounding_iou,
    whole_picture_iou,
    without_answer,
    yes_no,
)
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import SamplingSettings
from opengrit.sampling.replay import ReplaySampler

Row = dict[str, Any]
Corners = Sequence[float]

FILES = {
    "vsr": ("grit_val", "vsr_val.jsonl"),
    "tallyqa": ("grit_val", "tallyqa_val.jsonl"),
    "gqa": ("grit_val", "gqa_val.jsonl"),
    "mathvista": ("grit_val", "mathvista_mini_val.jsonl"),
    "mme": ("grit_val", "mme_val.jsonl"),
    "ovdeval": ("grit_val", "ovd_position_val.jsonl"),
    "photos that count": ("real_photos", "counting.jsonl"),
    "photos that relate": ("real_photos", "spatial.jsonl"),
    "vsr, training": ("grit_vsr_train_10.jsonl",),
}
FRAMES = ("qwen2_5_vl", "internvl")


# The arithmetic.


def rounded_to_28(width: int, height: int, *, most: int) -> tuple[int, int]:
    """The size Qwen2.5-VL's rule gives: multiples of 28, from 3,136 to `most` pixels, the shape nearly kept."""
    w, h = max(28, round(width / 28) * 28), max(28, round(height / 28) * 28)
    if w * h > most:
        shrink = math.sqrt(width * height / most)
        w, h = (max(28, math.floor(side / shrink / 28) * 28) for side in (width, height))
    elif w * h < 3136:
        grow = math.sqrt(3136 / (width * height))
        w, h = (math.ceil(side * grow / 28) * 28 for side in (width, height))
    return w, h


def resized(row: Row) -> tuple[int, int]:
    """What the released code shows the model: rounded once by its reader and once more by the processor."""
    once = rounded_to_28(row["width"], row["height"], most=16384 * 28 * 28)
    return rounded_to_28(*once, most=256 * 28 * 28)


def union(boxes: Sequence[Corners]) -> Any:
    return shapely.union_all([shapely.box(*box) for box in boxes])


def overlap(ours: Sequence[Corners], theirs: Sequence[Corners]) -> float:
    one, other = union(ours), union(theirs)
    return one.intersection(other).area / one.union(other).area


def clipped(row: Row) -> list[Corners]:
    wide, high = row["width"], row["height"]
    return [(max(a, 0), max(b, 0), min(c, wide), min(d, high)) for a, b, c, d in row.get("bboxs", ())]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def with_boxes(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("bboxs")]


def asks_for_words(row: Row) -> bool:
    return not isinstance(row["answer"], list)


# The answerers.


def extent(row: Row, frame: str) -> tuple[int, int]:
    return resized(row) if frame == "qwen2_5_vl" else (1000, 1000)


def in_frame(boxes: Sequence[Corners], row: Row, frame: str) -> list[Corners]:
    wide, high = extent(row, frame)
    x, y = wide / row["width"], high / row["height"]
    return [(a * x, b * y, c * x, d * y) for a, b, c, d in boxes]


def whole_numbers(boxes: Sequence[Corners]) -> list[Corners]:
    return [tuple(round(corner) for corner in box) for box in boxes]


def written(boxes: Sequence[Corners], answer: str) -> str:
    listed = ", ".join('{"bbox_2d": [' + ", ".join(f"{c:.9g}" for c in box) + "]}" for box in boxes)
    return f"<think>I look here: {listed}</think><rethink>That settles it.</rethink><answer>{answer}"


def oracle(row: Row, frame: str) -> str:
    answer = "here it is" if not asks_for_words(row) else str(row["answer"])
    return written(in_frame(clipped(row), row, frame), answer)


def oracle_in_whole_numbers(row: Row, frame: str) -> str:
    answer = "here it is" if not asks_for_words(row) else str(row["answer"])
    return written(whole_numbers(in_frame(clipped(row), row, frame)), answer)


def empty(row: Row, frame: str) -> str:
    return ""


def whole_picture(row: Row, frame: str) -> str:
    return written([(0, 0, *extent(row, frame))], "I cannot tell")


def always(answer: str) -> Callable[[Row, str], str]:
    return lambda row, frame: written([], answer)


@cache
def run(file: str, answerer: Callable[[Row, str], str], frame: str) -> tuple[Record, ...]:
    rows, examples = shared_rows(*FILES[file]), load(shared(*FILES[file]), on_problem=lambda _: None)
    assert len(rows) == len(examples) > 0
    completions = {
        example.id: [Completion(answerer(row, frame), (), Finish.EOS)]
        for row, example in zip(rows, examples, strict=True)
    }
    seen = {example.id: Size(*resized(row)) for row, example in zip(rows, examples, strict=True)}
    return tuple(
        evaluate(
            ReplaySampler(completions, seen_size=seen),
            examples,
            protocol=EvaluationProtocol("grounded", frame, RuleJudge(), Rubric.named("paper")),
            settings=SamplingSettings(temperature=0.0),
            questions_per_batch=512,
            quiet=True,
        )
    )


def of(estimated: Estimate) -> tuple[float | None, int]:
    return estimated.value, estimated.n


@needs_fixtures
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("file", FILES)
def test_the_oracle_is_right_about_everything(file: str, frame: str) -> None:
    rows, records = shared_rows(*FILES[file]), run(file, oracle, frame)
    in_words, boxed = [r for r in rows if asks_for_words(r)], with_boxes(rows)
    assert of(estimate(records, right)) == ((1.0, len(in_words)) if in_words else (None, 0))
    value, n = of(estimate(records, grounding_iou))
    assert n == len(boxed)
    if boxed:
        assert value == pytest.approx(1.0, abs=1e-6)
        assert estimate(records, box_f1).value in (1.0, None)
    assert of(estimate(records, without_answer)) == (0.0, len(rows))
    # The format asks for a box where the row has some.
    assert of(estimate(records, follows_format)) == (1.0, len(rows))


@needs_fixtures
@pytest.mark.parametrize("file", FILES)
def test_an_empty_answer_earns_nothing_and_is_counted_everywhere(file: str) -> None:
    rows, records = shared_rows(*FILES[file]), run(file, empty, "internvl")
    in_words = sum(map(asks_for_words, rows))
    assert of(estimate(records, right)) == ((0.0, in_words) if in_words else (None, 0))
    boxed = len(with_boxes(rows))
    for overlapping in (grounding_iou, unscaled_grounding_iou):
        assert of(estimate(records, overlapping)) == ((0.0, boxed) if boxed else (None, 0))
    assert of(estimate(records, without_answer)) == (1.0, len(rows))


@needs_fixtures
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("file", FILES)
def test_the_whole_picture_earns_the_share_that_the_true_boxes_cover(file: str, frame: str) -> None:
    rows, records = shared_rows(*FILES[file]), run(file, whole_picture, frame)
    shares = [union(clipped(row)).area / (row["width"] * row["height"]) for row in with_boxes(rows)]
    for quantity in (grounding_iou, whole_picture_iou):
        value, n = of(estimate(records, quantity))
        assert n == len(shares)
        assert value is None if not shares else value == pytest.approx(mean(shares), abs=1e-9)


# The answers that stand most often in a file, by the eye: a tie is decided by the alphabet.
MAJORITY = {
    "vsr": ("Yes", 123 / 288),
    "tallyqa": ("0", 50 / 491),
    "gqa": ("man", 23 / 509),  # 22 "man" and one "men"
    "mathvista": ("No", 90 / 1000),
    "mme": ("No", 120 / 240),
}
SPELLINGS = {"men": "man"}  # the rule takes a plural for its singular


@needs_fixtures
@pytest.mark.parametrize("file", [name for name in FILES if name != "ovdeval"])
def test_the_most_frequent_answer_is_right_as_often_as_it_stands_in_the_rows(file: str) -> None:
    rows = shared_rows(*FILES[file])
    counts = Counter(SPELLINGS.get(text, text) for text in (str(row["answer"]).casefold() for row in rows))
    most = max(counts.values())
    answer = min(text for text, count in counts.items() if count == most)
    if file in MAJORITY:
        assert MAJORITY[file] == (MAJORITY[file][0], pytest.approx(most / len(rows)))
        assert MAJORITY[file][0].casefold() == answer
    records = run(file, always(answer), "internvl")
    given = estimate(records, right)
    assert (given.value, given.n) == (pytest.approx(most / len(rows)), len(rows))
    # The control says the same of records that answer something else.
    others = run(file, oracle, "internvl")
    assert of(estimate(others, majority_control(others))) == (pytest.approx(most / len(rows)), len(rows))


# Grounding IoU as the released script has it, and as it should be.

CEILING = {"vsr": 0.557, "tallyqa": 0.829, "gqa": 0.852, "ovdeval": 0.481}
WHOLE_PICTURE = {"vsr": 0.588, "tallyqa": 0.285, "gqa": 0.253, "ovdeval": 0.152}
ROWS_WITH_BOXES = {"vsr": 288, "tallyqa": 441, "gqa": 509, "ovdeval": 2146}


@needs_fixtures
@pytest.mark.parametrize("file", CEILING)
def test_perfect_boxes_of_the_resized_frame_are_marked_down_by_the_released_script(file: str) -> None:
    records = run(file, oracle_in_whole_numbers, "qwen2_5_vl")
    unscaled = estimate(records, unscaled_grounding_iou)
    assert unscaled.n == ROWS_WITH_BOXES[file]
    assert unscaled.value == pytest.approx(CEILING[file], abs=0.005)
    by_hand = [
        overlap(whole_numbers(in_frame(clipped(row), row, "qwen2_5_vl")), clipped(row))
        for row in with_boxes(shared_rows(*FILES[file]))
    ]
    assert unscaled.value == pytest.approx(mean(by_hand), abs=1e-9)


@needs_fixtures
@pytest.mark.parametrize("file", CEILING)
def test_perfect_boxes_of_the_resized_frame_are_perfect_once_they_are_scaled_back(file: str) -> None:
    scaled = estimate(run(file, oracle, "qwen2_5_vl"), grounding_iou)
    assert (scaled.value, scaled.n) == (pytest.approx(1.0, abs=1e-6), ROWS_WITH_BOXES[file])
    # Written in whole pixels of the small picture they lose what the rounding takes, and no more.
    rounded = estimate(run(file, oracle_in_whole_numbers, "qwen2_5_vl"), grounding_iou)
    by_hand = []
    for row in with_boxes(shared_rows(*FILES[file])):
        truth = in_frame(clipped(row), row, "qwen2_5_vl")
        by_hand.append(overlap(whole_numbers(truth), truth))
    assert rounded.value == pytest.approx(mean(by_hand), abs=1e-9)


@needs_fixtures
@pytest.mark.parametrize("file", CEILING)
def test_the_released_script_brings_thousandths_to_pixels_and_cuts_them(file: str) -> None:
    records = run(file, oracle_in_whole_numbers, "internvl")
    by_hand = []
    for row in with_boxes(shared_rows(*FILES[file])):
        wide, high = row["width"] / 1000, row["height"] / 1000
        thousandths = whole_numbers(in_frame(clipped(row), row, "internvl"))
        cut = [(int(a * wide), int(b * high), int(c * wide), int(d * high)) for a, b, c, d in thousandths]
        by_hand.append(overlap(cut, clipped(row)))
    assert estimate(records, unscaled_grounding_iou).value == pytest.approx(mean(by_hand), abs=1e-9)


@needs_fixtures
@pytest.mark.parametrize("file", WHOLE_PICTURE)
def test_the_whole_picture_has_the_known_grounding_iou(file: str) -> None:
    control = estimate(run(file, whole_picture, "internvl"), grounding_iou)
    assert (control.value, control.n) == (
        pytest.approx(WHOLE_PICTURE[file], abs=0.0006),
        ROWS_WITH_BOXES[file],
    )


# Detection and yes/no.


@needs_fixtures
@pytest.mark.parametrize("frame", FRAMES)
def test_the_accuracy_of_ovdeval_is_the_share_of_thresholds_reached(frame: str) -> None:
    rows = shared_rows(*FILES["ovdeval"])
    right_boxes = estimate(run("ovdeval", oracle, frame), detection_ap)
    assert of(right_boxes) == (1.0, len(rows))
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    shares = [union(clipped(row)).area / (row["width"] * row["height"]) for row in rows]
    by_hand = [sum(share >= t - 1e-9 for t in thresholds) / 10 for share in shares]
    control = estimate(run("ovdeval", whole_picture, frame), detection_ap)
    assert of(control) == (pytest.approx(mean(by_hand)), len(rows))
    # The script takes the numbers unchanged, thousandths too.
    as_they_stand = []
    for row in rows:
        iou = overlap([(0, 0, *extent(row, frame))], clipped(row))
        as_they_stand.append(sum(iou >= t - 1e-9 for t in thresholds) / 10)
    unscaled = estimate(run("ovdeval", whole_picture, frame), unscaled_detection_ap)
    assert of(unscaled) == (pytest.approx(mean(as_they_stand)), len(rows))


@needs_fixtures
def test_always_yes_is_half_right_on_mme_and_never_about_both_questions_of_a_picture() -> None:
    rows = mme(run("mme", always("Yes"), "internvl"))
    assert [(row.subtask, row.accuracy.n, row.accuracy_plus.n) for row in rows] == [
        *((name, 60, 30) for name in ("mme_color", "mme_count", "mme_existence", "mme_position")),
        ("all", 240, 120),
    ]
    assert {(row.accuracy.value, row.accuracy_plus.value, row.score) for row in rows} == {(0.5, 0.0, 50.0)}
    perfect = mme(run("mme", oracle, "internvl"))
    assert {(row.accuracy.value, row.accuracy_plus.value, row.score) for row in perfect} == {
        (1.0, 1.0, 200.0)
    }


@needs_fixtures
def test_always_yes_has_the_f1_of_its_base_rate() -> None:
    rows = shared_rows(*FILES["vsr"])
    answers = Counter(str(row["answer"]).casefold() for row in rows)
    yes, no = answers["yes"], answers["no"]
    says = yes_no(run("vsr", always("Yes"), "internvl"))
    assert says.n == yes + no == 206
    assert (says.precision.value, says.recall.value) == (pytest.approx(yes / (yes + no)), 1.0)
    assert says.f1.value == pytest.approx(2 * yes / (yes + no + yes))
    assert (says.yes_share.value, says.neither_share.value) == (1.0, 0.0)
    nothing = yes_no(run("vsr", empty, "internvl"))
    assert (nothing.precision.value, nothing.recall.value, nothing.f1.value) == (None, 0.0, 0.0)
    assert (nothing.yes_share.value, nothing.neither_share.value) == (0.0, 1.0)
