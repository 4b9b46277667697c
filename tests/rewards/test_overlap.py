"""Rewards of where boxes lie and the gates before rewards: earned, not earned, and the cheapest way to cheat each."""

from __future__ import annotations

import pytest

from opengrit import load_recipe
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RecipeError
from opengrit.core.types import Completion, Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.recipes.training_recipe import Recipe, parse_recipe
from opengrit.rewards.controls import random_coin
from opengrit.rewards.gates import LONGEST_ANSWER, Gate
from opengrit.rewards.overlap import box_dual, box_f1, box_precision, box_recall, box_valid
from opengrit.rewards.protocol import Attempt, Requirement
from opengrit.rewards.rubric import SPECS, Rubric

FRAME = Frame.for_model_type("internvl", seen_size=Size(1000, 1000))  # writes 0-1000
RIGHT, WRONG, OUTAGE = Verdict(True, 1.0), Verdict(False, 0.0), Unjudged("the judge is down")
# Two dogs, each a tenth of the picture wide and high.
DOGS = (Box(0.1, 0.1, 0.2, 0.2), Box(0.6, 0.6, 0.7, 0.7))
COUNTING = Example("c", "How many dogs are there?", "2", "c.png", "tallyqa", Size(100, 100), boxes=DOGS)
GROUP = Example("g", "How many dogs are there?", "5", "g.png", "tallyqa", Size(100, 100), boxes=DOGS)
NO_DOGS = Example("z", "How many dogs are there?", "0", "z.png", "tallyqa", Size(100, 100))
WHERE = Example("w", "Where is the dog?", "[1, 2, 3, 4]", "w.png", "ovd", Size(100, 100), boxes=DOGS[:1])
FIRST, SECOND, NOWHERE = "(100, 100, 200, 200)", "(600, 600, 700, 700)", "(0, 800, 100, 900)"
HALF = "(100, 100, 200, 150)"  # the upper half of the first dog: IoU 0.5
FULL = f"<think>{FIRST} and {SECOND}</think><rethink>two</rethink><answer>2</answer>"


def attempt(text: str, example: Example = COUNTING, verdict: Verdict | Unjudged = RIGHT) -> Attempt:
    return Attempt(example, Completion(text), parse(text, FRAME), verdict)


@pytest.mark.parametrize(
    ("boxes", "recall", "precision", "f1"),
    [
        (f"{FIRST} {SECOND}", 1, 1, 1),
        (FIRST, 1 / 2, 1, 2 / 3),  # one of two, and nothing else: 2 * 1 hit / (1 + 2 boxes)
        (HALF, 0.5 / 2, 0.5, 2 / 3),  # an IoU of 0.5 is a hit
        (f"{FIRST} {HALF}", 1 / 2, (1 + 0.5) / 2, 2 / 4),  # the second box finds the same dog
        (f"{FIRST} {NOWHERE} {SECOND}", 1, 2 / 3, 4 / 5),
        (f"{FIRST} {SECOND} {FIRST}", 1, 1, 1),  # a box written twice counts once
        (NOWHERE, 0, 0, 0),
        ("two", 0, 0, 0),
    ],
)
def test_boxes_earn_by_hand_worked_overlaps(boxes: str, recall: float, precision: float, f1: float) -> None:
    one = attempt(f"<think>{boxes}</think>")
    assert box_recall(one) == pytest.approx(recall)
    assert box_precision(one) == pytest.approx(precision)
    assert box_dual(one) == pytest.approx((recall + precision) / 2)
    assert box_f1(one) == pytest.approx(f1)


def test_rows_without_boxes_earn_nothing_and_lose_nothing() -> None:
    one = attempt(FULL, NO_DOGS)
    assert [reward(one) for reward in (box_recall, box_precision, box_dual, box_f1)] == [None] * 4


def test_one_to_one_says_nothing_where_a_box_holds_several_things() -> None:
    assert box_f1(attempt(FULL, GROUP)) is None
    assert box_recall(attempt(FULL, GROUP)) == 1.0


GRID = " ".join(f"({x}, {y}, {x + 100}, {y + 100})" for x in range(0, 1000, 100) for y in range(0, 1000, 100))


def test_box_recall_is_cheated_by_boxes_all_over_the_picture_and_box_precision_is_not() -> None:
    everywhere = attempt(f"<think>{GRID}</think>")
    assert box_recall(everywhere) == pytest.approx(1.0)
    assert box_precision(everywhere) == pytest.approx(2 / 100)
    assert box_f1(everywhere) == pytest.approx(4 / 102)


def test_box_precision_is_cheated_by_the_one_surest_box_and_box_recall_is_not() -> None:
    assert box_precision(attempt(f"<think>{FIRST}</think>", GROUP)) == 1.0
    assert box_recall(attempt(f"<think>{FIRST}</think>", GROUP)) == 0.5


def test_box_dual_is_cheated_for_half_by_boxes_all_over_the_picture() -> None:
    assert box_dual(attempt(f"<think>{GRID}</think>")) == pytest.approx((1 + 2 / 100) / 2)


def test_box_f1_is_cheated_by_right_boxes_under_a_wrong_answer_unless_a_gate_is_before_it() -> None:
    wrong = attempt(f"<think>{FIRST} {SECOND}</think><answer>7", verdict=WRONG)
    assert box_f1(wrong) == 1.0
    assert Rubric({"box_f1": 1.0}, gates={"box_f1": (Gate.RIGHT,)}).score(wrong).total == 0.0


# box_valid

NEAR = "(100, 100, 200, 196)"  # IoU 0.96 with the first dog
APART = "(100, 100, 200, 190)"  # IoU 0.9, which is not above it


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (f"<think>{FIRST} {SECOND}</think>", 1),
        (f"<think>{FIRST} {FIRST}</think>", 1 / 2),
        (f"<think>{FIRST} {NEAR} {NEAR} {SECOND}</think>", 2 / 4),
        (f"<think>{FIRST} {APART}</think>", 1),
        (
            f"<think>{FIRST} {SECOND}</think><rethink>{FIRST} {SECOND}</rethink>",
            1,
        ),  # named again, as is meant
        (f"<think>{FIRST}</think><rethink>{SECOND} {SECOND}</rethink>", 2 / 3),
        ("<think>two</think>", 0),
    ],
)
def test_box_valid_is_earned_by_boxes_that_repeat_none(text: str, share: float) -> None:
    assert box_valid(attempt(text)) == pytest.approx(share)


def test_box_valid_is_cheated_by_one_box_anywhere() -> None:
    assert box_valid(attempt(f"<think>{NOWHERE}</think>")) == 1.0


def test_box_valid_says_nothing_where_there_is_nothing_to_point_at() -> None:
    assert box_valid(attempt(FULL, NO_DOGS)) is None


# Gates


def gated(where: str, one: Attempt, reward: str = "box_recall") -> object:
    recipe = parse_recipe(
        "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"
        f"rewards: {{{reward}: {{weight: 0.5, where: {where}}}, tag_pairs: 0}}"
    )
    score = recipe.rubric().score(one)
    return score.missing if score.total is None else score.total


LONG_ANSWER = FULL.replace("<answer>2", "<answer>2, and " + "so " * (LONGEST_ANSWER // 3))


@pytest.mark.parametrize(
    ("where", "one", "paid"),
    [
        ("right", attempt(FULL), 0.5),
        ("right", attempt(FULL, verdict=WRONG), 0.0),
        ("right", attempt(FULL, verdict=OUTAGE), "the judge is down"),
        ("format", attempt(FULL), 0.5),
        ("format", attempt(FULL, verdict=OUTAGE), 0.5),  # nobody needs to judge
        ("format", attempt(f"<think>{FIRST} {SECOND}</think>"), 0.0),
        ("short", attempt(FULL), 0.5),
        ("short", attempt(LONG_ANSWER), 0.0),
        ("[right, format]", attempt(FULL), 0.5),
        ("[right, format]", attempt("<answer>2", verdict=OUTAGE), 0.0),  # closed, whatever a judge would say
        ("[right, format]", attempt(FULL, verdict=OUTAGE), "the judge is down"),
        ("null", attempt(FULL, verdict=WRONG), 0.5),
    ],
)
def test_a_closed_gate_pays_nothing_and_an_outage_stays_an_outage(
    where: str, one: Attempt, paid: object
) -> None:
    assert gated(where, one) == paid


def test_a_part_that_says_nothing_stays_so_behind_any_gate() -> None:
    rubric = Rubric(
        {"box_recall": 1.0, "tag_pairs": 1.0},
        gates={"box_recall": (Gate.RIGHT,), "tag_pairs": (Gate.FORMAT,)},
    )
    score = rubric.score(attempt("<answer>0", NO_DOGS, WRONG))
    assert (score.parts, score.total) == ({"box_recall": None, "tag_pairs": 0.0}, 0.0)
    # No judge is asked about a box: whether it is right is not known, now or later.
    assert Rubric({"box_recall": 1.0}, gates={"box_recall": (Gate.RIGHT,)}).score(
        attempt(f"<think>{FIRST}</think>", WHERE, OUTAGE)
    ).parts == {"box_recall": None}


def test_the_length_guard_keeps_an_answer_that_talks_the_judge_round_from_earning() -> None:
    # A judge that reads a list of every number as right.
    assert gated("null", attempt(LONG_ANSWER), "correct") == 0.5
    assert gated("short", attempt(LONG_ANSWER), "correct") == 0.0


def test_a_gate_on_the_answer_needs_a_judge() -> None:
    rubric = Rubric({"box_recall": 1.0}, gates={"box_recall": (Gate.RIGHT,)})
    assert rubric.needs() == {Requirement.BOXES, Requirement.VERDICT}


def test_a_gate_is_written_out_with_the_run_and_read_again(tmp_path) -> None:
    text = (
        "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"
        "rewards: {correct: 1.0, box_f1: {weight: 0.5, where: right}}"
    )
    recipe = parse_recipe(text)
    (tmp_path / "recipe.yaml").write_text(recipe.resolved_yaml())
    again = load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(again, Recipe)
    assert again.rubric() == recipe.rubric()
    assert again.hash() == recipe.hash()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("correct", "'right', 'format' or 'short'"),
        ("[]", "at least one"),
        ("[right, right]", "each once"),
    ],
)
def test_a_gate_that_is_none_is_refused(where: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        gated(where, attempt(FULL))


def test_a_reward_of_boxes_is_refused_where_no_row_can_earn_it() -> None:
    with pytest.raises(RecipeError, match="'box_f1' needs rows with a box for each object"):
        Rubric({"box_f1": 1.0, "correct": 1.0}).check([GROUP])
    assert SPECS["box_f1"].needs == {Requirement.COUNTABLE_BOXES}


# random_coin


def test_a_coin_is_tossed_by_row_step_and_text_and_falls_on_both_sides_alike() -> None:
    attempts = [
        Attempt(COUNTING, Completion(f"{i}"), parse("", FRAME), RIGHT, step)
        for i in range(200)
        for step in (1, 2)
    ]
    tossed = [random_coin(one) for one in attempts]
    assert tossed == [random_coin(one) for one in attempts]  # a resumed run tosses alike
    assert set(tossed) == {0.0, 1.0}
    assert 140 < sum(tossed) < 260  # 400 tosses: six standard deviations are 60
    assert any(first != second for first, second in zip(tossed[::2], tossed[1::2], strict=True))
