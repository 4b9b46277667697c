"""Every reward: earned, not earned, and the cheapest way to cheat it. Then the rubric."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RecipeError, RewardError
from opengrit.core.types import Completion, Example, Record, Unjudged, Verdict, is_counting
from opengrit.evaluation.rollout import EvaluationProtocol, transcribed, with_verdicts
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.judges import RuleJudge
from opengrit.rewards.answers import any_credit, bleu1, correct, sentence_bleu1
from opengrit.rewards.boxes import (
    box_count,
    boxes_before_rethink_tag,
    grounding_iou,
    points_before_rethinking,
)
from opengrit.rewards.format import answer_tag, repetition, tag_pairs, tag_walk
from opengrit.rewards.measuring import Value, measure
from opengrit.rewards.protocol import Attempt, NamedReward, Requirement, Reward
from opengrit.rewards.rubric import REWARDS, SETS, SPECS, Rubric
from opengrit.sampling import Sampled

FRAME = Frame.for_model_type("internvl", seen_size=Size(1000, 1000))  # writes 0-1000
RIGHT, WRONG = Verdict(True, 1.0), Verdict(False, 0.0)
OUTAGE = Unjudged("the judge is down")

LEFT_HALF = Box(0.0, 0.0, 0.5, 1.0)
COUNTING = Example(
    "c", "How many dogs are there?", "2", "c.png", "tallyqa", Size(100, 100), boxes=(LEFT_HALF,)
)
SPATIAL = Example(
    "s", "Is the dog left of the cat?", "No", "s.png", "vsr", Size(100, 100), boxes=(LEFT_HALF,)
)
NO_DOGS = Example("z", "How many dogs are there?", "0", "z.png", "tallyqa", Size(100, 100))
WHERE = Example("w", "Where is the dog?", "[1, 2, 3, 4]", "w.png", "ovd", Size(100, 100), boxes=(LEFT_HALF,))

FULL = (
    "<think>one dog at (0, 0, 250, 1000) and one at (250, 0, 500, 1000)</think>"
    "<rethink>that makes two dogs</rethink><answer>2</answer>"
)


def attempt(
    text: str,
    example: Example = COUNTING,
    verdict: Verdict | Unjudged = RIGHT,
    token_ids: tuple[int, ...] | None = None,
) -> Attempt:
    """An attempt whose token ids are all different unless they are given."""
    ids = tuple(range(len(text))) if token_ids is None else token_ids
    completion = Completion(text, ids)
    return Attempt(example, completion, parse(text, FRAME), verdict)


# correct


def test_correct_is_earned_by_a_right_verdict() -> None:
    assert correct(attempt(FULL)) == 1.0


def test_correct_is_not_earned_by_a_wrong_verdict() -> None:
    assert correct(attempt(FULL, verdict=WRONG)) == 0.0
    assert correct(attempt(FULL, verdict=Verdict(False, 0.4))) == 0.0


def test_correct_is_cheated_by_a_lucky_guess_without_any_reasoning() -> None:
    assert correct(attempt("<answer>2")) == 1.0


def test_correct_says_nothing_where_the_answer_is_a_box() -> None:
    assert correct(attempt(FULL, WHERE, verdict=OUTAGE)) is None


# any_credit


def test_any_credit_is_earned_by_a_partly_right_answer() -> None:
    assert any_credit(attempt(FULL, verdict=Verdict(False, 0.1))) == 1.0


def test_any_credit_is_not_earned_by_a_score_of_zero() -> None:
    assert any_credit(attempt(FULL, verdict=WRONG)) == 0.0


def test_any_credit_is_cheated_by_a_vague_answer_that_gets_a_tenth() -> None:
    assert any_credit(attempt("<answer>some", verdict=Verdict(False, 0.1))) == 1.0


def test_any_credit_is_not_zero_when_the_judge_is_down() -> None:
    # The official code tries three times and then gives 0.
    assert any_credit(attempt(FULL, verdict=OUTAGE)) == OUTAGE


# bleu1


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("hot dog", "Hot dog!", 1.0),
        ("hot dog", "a hot dog", 2 / 3),  # 2 of 3 words; longer than the reference, no penalty
        ("hot dog", "dog", math.exp(1 - 2 / 1)),  # 1 of 1 word, penalty exp(1 - 2/1)
        ("the cat sat on the mat", "the the the", 2 / 3 * math.exp(1 - 6 / 3)),  # "the" counts twice at most
        ("hot dog", "cat", 0.0),
        ("hot dog", "", 0.0),
        ("7", "7.", 1.0),
    ],
)
def test_bleu1_of_hand_worked_pairs(reference: str, candidate: str, expected: float) -> None:
    assert sentence_bleu1(reference, candidate) == pytest.approx(expected, abs=1e-12)


def test_bleu1_is_earned_by_the_expected_words() -> None:
    assert bleu1(attempt("<answer>2")) == 1.0


def test_bleu1_is_not_earned_without_an_answer() -> None:
    assert bleu1(attempt("<think>2</think>")) == 0.0


def test_bleu1_is_cheated_by_an_answer_that_hedges() -> None:
    assert bleu1(attempt("<answer>Yes No", SPATIAL)) == 0.5


def test_bleu1_does_not_read_the_closing_tag_as_a_word() -> None:
    # The official code leaves "answer" of "</answer>" in, which halves the score of a one-word answer.
    assert bleu1(attempt("<answer>2</answer>")) == 1.0


# tag_pairs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FULL, 1.0),
        ("<think>a</think><answer>2", 0.5),
        ("<rethink>a</rethink><answer>2", 0.5),
    ],
)
def test_tag_pairs_is_earned_by_half_a_pair_at_a_time(text: str, expected: float) -> None:
    assert tag_pairs(attempt(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 0.0),
        ("<think>a", 0.0),
        ("</think>a<think>", 0.0),
        ("<think>a</think><rethink>b", 0.5),
        ("<rethink>b</rethink><think>a</think>", 0.5),  # the think pair comes first or one half is lost
        ("<think>a<rethink>b</rethink></think>", 0.5),
        ("<think>a</think><think>b</think>", 0.0),
    ],
)
def test_tag_pairs_is_not_earned_by_missing_repeated_or_swapped_tags(text: str, expected: float) -> None:
    assert tag_pairs(attempt(text)) == expected


def test_tag_pairs_is_cheated_by_empty_pairs() -> None:
    assert tag_pairs(attempt("<think></think><rethink></rethink>")) == 1.0


# points_before_rethinking


def test_points_before_rethinking_is_earned_by_one_box_in_the_thought() -> None:
    assert points_before_rethinking(attempt("<think>dog (0, 0, 10, 10)</think>")) == 1.0


def test_points_before_rethinking_is_not_earned_by_a_box_in_the_rethink() -> None:
    assert points_before_rethinking(attempt("<think>a</think><rethink>(0, 0, 10, 10)</rethink>")) == 0.0


@pytest.mark.parametrize("numbers", ["(10, 10, 5, 5)", "1, 2, 3, 4 dogs", "[1, 2, 3, 4, 5, 6]", "in 1999"])
def test_numbers_that_are_no_box_earn_nothing(numbers: str) -> None:
    # The official regex takes any four integers with commas, reversed corners and prose included.
    assert points_before_rethinking(attempt(f"<think>{numbers}</think><rethink>b</rethink>")) == 0.0


def test_points_before_rethinking_is_cheated_by_any_box_anywhere_in_the_picture() -> None:
    assert points_before_rethinking(attempt("<think>(990, 990, 999, 999)</think>")) == 1.0


# box_count


def test_box_count_is_earned_by_as_many_boxes_as_the_answer() -> None:
    assert box_count(attempt(FULL)) == 1.0


def test_box_count_is_not_earned_by_another_number_of_boxes() -> None:
    assert box_count(attempt("<think>(0, 0, 10, 10)</think>")) == 0.0


def test_box_count_does_not_count_boxes_repeated_while_rethinking() -> None:
    text = "<think>(0, 0, 10, 10) (20, 20, 30, 30)</think><rethink>(0, 0, 10, 10) (20, 20, 30, 30)</rethink>"
    assert box_count(attempt(text)) == 1.0


def test_a_run_of_eight_numbers_is_not_two_boxes() -> None:
    assert box_count(attempt("<think>[0, 0, 10, 10, 20, 20, 30, 30]</think>")) == 0.0


def test_box_count_says_nothing_on_rows_that_count_nothing() -> None:
    assert box_count(attempt(FULL, SPATIAL)) is None


def test_box_count_is_cheated_by_the_same_box_written_as_often_as_needed() -> None:
    assert box_count(attempt("<think>(0, 0, 10, 10) (0, 0, 10, 10)</think>")) == 1.0


def test_box_count_is_not_earned_by_silence_on_a_row_that_counts_zero() -> None:
    assert box_count(attempt("<answer>0", NO_DOGS)) == 0.0
    assert box_count(attempt("<think>no dogs</think>", NO_DOGS)) == 1.0


# answer_tag


def test_answer_tag_is_earned_by_one_opening_tag() -> None:
    assert answer_tag(attempt("<answer>2</answer>")) == 1.0


def test_answer_tag_is_not_earned_in_full_by_two_nor_at_all_by_none() -> None:
    assert answer_tag(attempt("<answer>2<answer>2")) == 0.5
    assert answer_tag(attempt("2</answer>")) == 0.0


def test_answer_tag_is_cheated_by_the_tag_alone() -> None:
    assert answer_tag(attempt("<answer>")) == 1.0


# tag_walk


def test_tag_walk_is_earned_by_the_four_tags_and_a_thought_of_two_words() -> None:
    assert tag_walk(attempt(FULL)) == 1.0


@pytest.mark.parametrize(
    ("text", "fifths"),
    [
        ("2", 0),
        ("<think>a b", 1),
        ("<think>a b</think>", 2),
        ("<think>a b</think><rethink>c", 3),
        ("<think>a</think><rethink>c</rethink>", 4),  # the thought is one word
        ("<rethink>c</rethink><think>a b</think>", 2),
    ],
)
def test_tag_walk_gives_partial_credit(text: str, fifths: int) -> None:
    assert tag_walk(attempt(text)) == pytest.approx(fifths / 5)


def test_a_missing_tag_ends_the_walk() -> None:
    # The official code goes on and gives 3 fifths here.
    assert tag_walk(attempt("<think>a b<rethink>c</rethink>")) == pytest.approx(1 / 5)


def test_the_walk_goes_on_after_the_first_occurrence_of_a_tag() -> None:
    # The official code searches after the last <think> and then finds nothing.
    text = "<think>a b</think><rethink>c</rethink><think>"
    assert tag_walk(attempt(text)) == 1.0


def test_tag_walk_is_cheated_by_two_words_that_mean_nothing() -> None:
    assert tag_walk(attempt("<think>a b</think><rethink></rethink>")) == 1.0


# boxes_before_rethink_tag


def test_boxes_before_rethink_tag_is_earned_by_boxes_and_by_their_number() -> None:
    assert boxes_before_rethink_tag(attempt(FULL)) == 1.5
    assert boxes_before_rethink_tag(attempt(FULL, SPATIAL)) == 0.5
    assert boxes_before_rethink_tag(attempt("<think>none</think><rethink>b</rethink>", NO_DOGS)) == 1.0


def test_boxes_before_rethink_tag_is_not_earned_without_the_tag_or_after_it() -> None:
    assert boxes_before_rethink_tag(attempt("<think>(0, 0, 10, 10) (1, 1, 10, 10)</think>")) == 0.0
    assert (
        boxes_before_rethink_tag(attempt("<think>a</think><rethink>(0, 0, 10, 10)</rethink>", SPATIAL)) == 0.0
    )


def test_boxes_before_rethink_tag_is_cheated_by_repeating_a_box() -> None:
    assert boxes_before_rethink_tag(attempt("(0, 0, 10, 10) (0, 0, 10, 10)<rethink>")) == 1.5


def test_each_row_of_a_mixed_batch_is_scored_by_its_own_data_set() -> None:
    # The official code reads the data set of the first row for all: it raises on "No" or drops the bonus.
    for batch in ([COUNTING, SPATIAL], [SPATIAL, COUNTING]):
        scores = {row.id: boxes_before_rethink_tag(attempt(FULL, row)) for row in batch}
        assert scores == {"c": 1.5, "s": 0.5}


# repetition

LONG = " ".join(f"word{i}" for i in range(20))


def test_repetition_is_earned_by_a_text_that_repeats_nothing() -> None:
    assert repetition(attempt(LONG)) == 1.0


def test_repetition_is_not_earned_by_a_loop() -> None:
    # 24 equal words and tokens: 24 - 16 + 1 = 9 places, each followed by itself, so 0 - (1 - 0).
    assert repetition(attempt("dog " * 24, token_ids=(5,) * 24)) == -1.0


def test_repetition_counts_whole_8_grams_only() -> None:
    # abcdefgh abcdefgh x: 17 items, places 0 and 1. Place 0 is followed by itself and place 1 is not: S is 1/2 for
    # the tokens and for the words, so 1/2 - (1 - 1/2). Comparing cut-off 8-grams would dilute the share.
    words = "a b c d e f g h a b c d e f g h x"
    ids = tuple(ord(letter) for letter in words if letter != " ")
    assert repetition(attempt(words, token_ids=ids)) == 0.0


def test_an_empty_or_short_text_earns_no_repetition_reward() -> None:
    # The official code gives full marks.
    assert repetition(attempt("")) == 0.0
    assert repetition(attempt("dog")) == 0.0
    assert repetition(attempt(" ".join("abcdefghijklmno"), token_ids=tuple(range(15)))) == 0.0


def test_no_token_id_is_taken_for_padding() -> None:
    # 151643 is the pad id of one family, which the official code strips from all of them.
    assert repetition(attempt(LONG, token_ids=(151643,) * 20)) == 0.0  # 0 for the tokens, 1 for the words


def test_repetition_is_cheated_by_a_loop_whose_period_does_not_divide_eight() -> None:
    words = [f"w{i % 5}" for i in range(40)]
    assert repetition(attempt(" ".join(words), token_ids=tuple(i % 5 for i in range(40)))) == 1.0


def test_repetition_without_token_ids_is_missing_and_not_zero() -> None:
    assert isinstance(repetition(attempt(LONG, token_ids=())), Unjudged)


# grounding_iou


def test_grounding_iou_is_earned_by_the_right_place_in_one_box_or_in_two() -> None:
    assert grounding_iou(attempt(FULL)) == pytest.approx(1.0)
    assert grounding_iou(attempt("(0, 0, 500, 1000)")) == pytest.approx(1.0)


def test_grounding_iou_is_not_earned_elsewhere_or_without_boxes() -> None:
    assert grounding_iou(attempt("(500, 0, 1000, 1000)")) == 0.0
    assert grounding_iou(attempt("<answer>2")) == 0.0


def test_grounding_iou_is_cheated_by_the_whole_picture_for_the_share_that_the_truth_covers() -> None:
    assert grounding_iou(attempt("(0, 0, 1000, 1000)")) == pytest.approx(0.5)


def test_grounding_iou_says_nothing_where_the_row_has_no_boxes() -> None:
    assert grounding_iou(attempt(FULL, NO_DOGS)) is None


# is_counting


@pytest.mark.parametrize(
    ("question", "answer", "dataset", "expected"),
    [
        ("How many dogs are there?", "2", "mine", True),
        ("Count the dogs.", "2", "stickers/count", True),
        ("Dogs?", "2", "tallyqa", True),
        ("How many dogs are there?", "two", "tallyqa", False),
        ("Are there two dogs?", "Yes", "mme_count", False),
        ("What is the volume?", "1000", "mathvista_mini", False),
    ],
)
def test_counting_rows_have_a_whole_number_and_ask_for_it(
    question: str, answer: str, dataset: str, expected: bool
) -> None:
    assert is_counting(Example("e", question, answer, "e.png", dataset, Size(1, 1))) == expected


# The rubric


def test_the_paper_rubric_adds_up_to_its_maximum() -> None:
    # tags 1.0 + box 0.5 + count 0.5 + answer 1.0 + 0.1 * BLEU 1
    score = Rubric.named("paper").score(attempt(FULL))
    assert score.total == pytest.approx(3.1)
    assert score.missing is None
    spatial = FULL.replace("<answer>2", "<answer>No")
    assert Rubric.named("paper").score(attempt(spatial, SPATIAL)).total == pytest.approx(2.6)


def test_the_released_rubric_adds_up_to_its_maximum() -> None:
    # judge 1.0 + 0.1 * BLEU + answer tag 0.5 + repetition 0.5 + boxes 1.5 + walk 0.5
    long = FULL.replace("that makes two dogs", LONG)
    assert Rubric.named("released").score(attempt(long)).total == pytest.approx(4.1)
    spatial = long.replace("<answer>2", "<answer>No")
    assert Rubric.named("released").score(attempt(spatial, SPATIAL)).total == pytest.approx(3.1)


def test_an_empty_completion_earns_nothing_in_any_set() -> None:
    for name in set(SETS) - {"random"}:  # a coin is tossed for it too
        for row in (COUNTING, SPATIAL, NO_DOGS):
            assert Rubric.named(name).score(attempt("", row, verdict=WRONG)).total == 0.0


def test_the_paper_ties_on_a_row_that_counts_zero_and_the_released_code_prefers_no_box() -> None:
    silent = "<think>no dogs here</think><rethink>none</rethink><answer>0"
    pointing = "<think>dog (0, 0, 10, 10)</think><rethink>none</rethink><answer>0"
    paper, released = Rubric.named("paper"), Rubric.named("released")
    assert paper.score(attempt(silent, NO_DOGS)).total == paper.score(attempt(pointing, NO_DOGS)).total
    difference = (
        released.score(attempt(silent, NO_DOGS)).total,
        released.score(attempt(pointing, NO_DOGS)).total,
    )
    assert difference[0] == pytest.approx((difference[1] or 0.0) + 0.5)


def test_a_judge_outage_leaves_no_total_and_is_never_a_zero() -> None:
    score = Rubric.named("paper").score(attempt(FULL, verdict=OUTAGE))
    assert score.total is None
    assert score.missing == "the judge is down"
    assert score.parts == {"tag_pairs": 1.0, "points_before_rethinking": 1.0, "box_count": 1.0, "bleu1": 1.0}


def test_a_part_that_says_nothing_about_the_row_is_none_and_adds_nothing() -> None:
    rubric = Rubric.from_weights({"correct": 1.0, "box_count": 5.0})
    score = rubric.score(attempt(FULL, SPATIAL))
    assert score.parts == {"correct": 1.0, "box_count": None}
    assert score.total == 1.0


def test_a_row_about_which_no_reward_says_anything_has_no_total() -> None:
    score = Rubric.from_weights({"box_count": 1.0, "grounding_iou": 1.0}).score(
        attempt(FULL, Example("n", "Is it?", "No", "n.png", "vsr", Size(1, 1)))
    )
    assert (score.total, score.missing) == (None, "no reward says anything about this row")


def test_a_reward_of_weight_zero_cannot_cost_the_total() -> None:
    score = Rubric.from_weights({"tag_pairs": 1.0, "correct": 0.0}).score(attempt(FULL, verdict=OUTAGE))
    assert (score.total, score.missing, score.parts) == (1.0, None, {"tag_pairs": 1.0})


def test_a_row_whose_answer_is_a_box_is_rewarded_by_its_other_parts() -> None:
    rubric = Rubric.from_weights({"correct": 1.0, "bleu1": 1.0, "grounding_iou": 2.0})
    score = rubric.score(attempt("<answer>[0, 0, 500, 1000]", WHERE, verdict=OUTAGE))
    assert score.total == pytest.approx(2.0)
    assert score.missing is None


def test_parts_are_unweighted_and_the_total_is_weighted() -> None:
    score = Rubric.from_weights({"tag_pairs": 3.0, "correct": -1.0, "bleu1": 0.0}).score(attempt(FULL))
    assert score.parts == {"tag_pairs": 1.0, "correct": 1.0, "bleu1": 1.0}
    assert score.total == pytest.approx(2.0)


def test_an_unknown_reward_is_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="got 'corect'; did you mean 'correct'"):
        Rubric.from_weights({"corect": 1.0})
    with pytest.raises(RecipeError, match="got 'papers'; did you mean 'paper'"):
        Rubric.named("papers")


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), True, "1"])
def test_a_weight_is_a_finite_number(weight: object) -> None:
    with pytest.raises(RecipeError, match=r"finite number.*rewards\.correct"):
        Rubric.from_weights({"correct": weight})  # type: ignore[dict-item]


def test_a_rubric_without_rewards_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one reward"):
        Rubric.from_weights({})


def test_a_rubric_tells_what_it_needs() -> None:
    assert Rubric.named("paper").needs() == {Requirement.WORDS, Requirement.VERDICT, Requirement.COUNTS}
    assert Requirement.TOKEN_IDS in Rubric.named("released").needs()
    assert Rubric.from_weights({"grounding_iou": 1.0}).needs() == {Requirement.BOXES}
    assert Rubric.from_weights({"tag_pairs": 1.0}).needs() == frozenset()


@pytest.mark.parametrize(
    ("reward", "rows"),
    [("grounding_iou", [NO_DOGS]), ("box_count", [SPATIAL]), ("correct", [WHERE]), ("bleu1", [WHERE])],
)
def test_a_reward_that_can_apply_to_no_row_is_refused(reward: str, rows: list[Example]) -> None:
    rubric = Rubric.from_weights({reward: 1.0})
    with pytest.raises(RecipeError, match=f"'{reward}' needs .* none of 1 rows"):
        rubric.check(rows)
    rubric.check([*rows, COUNTING])


def test_every_set_names_rewards_that_exist() -> None:
    assert {name for weights in SETS.values() for name in weights} <= REWARDS.keys()


# A reward that breaks what is stated of it


def measured(name: str, reward: Reward) -> Value:
    """What a reward with the name and the spec of a shipped one returns, checked."""
    return measure([NamedReward(name, reward, SPECS[name])], [attempt(FULL)])[0][0]


def raising(attempt: Attempt) -> float:
    raise ZeroDivisionError("division\nby zero")


BROKEN = {
    "NaN": (lambda a: math.nan, "returned nan"),
    "an infinity": (lambda a: -math.inf, "returned -inf"),
    "beyond the range": (lambda a: 1.5, "returned 1.5"),
    "below the range": (lambda a: -1, "returned -1"),
    "a text": (lambda a: "1.0", "returned '1.0'"),
    "a list": (lambda a: [1.0, 0.5], r"returned \[1.0, 0.5\]"),
    "true": (lambda a: True, "returned True"),
    "a complex number": (lambda a: 1j, "returned 1j"),
    "an exception": (raising, r"raised ZeroDivisionError \(division by zero\)"),
    "a long text": (lambda a: "x" * 1000, r"returned 'x{76}\.\.\. for"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_reward_that_breaks_what_is_stated_of_it_is_named_with_its_row(case: str) -> None:
    reward, what = BROKEN[case]
    with pytest.raises(RewardError, match=what) as raised:
        measured("tag_pairs", reward)
    said = str(raised.value)
    assert "a reward returns a number from 0 to 1, None or Unjudged" in said
    assert "rewards.tag_pairs" in said
    assert "row 'c' of 'tallyqa'" in said
    assert __file__ in said  # where the reward stands
    assert "leave it out of rewards:" in said
    assert "\n" not in said


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.float64(1.0), 1.0 + 1e-12])
def test_a_number_of_any_kind_is_taken_and_kept_as_a_float(value: float) -> None:
    found = measured("correct", lambda a: value)
    assert type(found) in (float, np.float64)
    assert found == pytest.approx(float(value))


def test_what_says_nothing_and_what_could_not_be_measured_pass_through() -> None:
    assert measured("correct", lambda a: None) is None
    assert measured("correct", lambda a: OUTAGE) == OUTAGE


def test_a_rubric_asks_through_the_same_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "tag_pairs", lambda a: math.nan)
    with pytest.raises(RewardError, match=r"rewards\.tag_pairs returned nan"):
        Rubric.named("paper").score(attempt(FULL))


def test_every_reward_states_its_range() -> None:
    assert SPECS.keys() == REWARDS.keys()
    assert all(spec.low < spec.high for spec in SPECS.values())
    assert (SPECS["repetition"].low, SPECS["boxes_before_rethink_tag"].high) == (-1.0, 1.5)


def test_weights_whose_total_no_trainer_can_hold_are_refused() -> None:
    with pytest.raises(RecipeError, match="add up to at most 1e"):
        Rubric.from_weights({"correct": 1e38, "bleu1": -1e38})


def unjudged_record() -> Record:
    protocol = EvaluationProtocol("grounded", "internvl", RuleJudge(), Rubric.named("paper"))
    return transcribed(COUNTING, Sampled(Completion(FULL), (), Size(1000, 1000)), protocol=protocol, sample=0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_judge_of_the_wrong_length_is_named_with_the_rows(count: int) -> None:
    with pytest.raises(RewardError, match=rf"one opinion for each case, got {count} for 2 from c#0 on"):
        with_verdicts([unjudged_record()] * 2, [RIGHT] * count, rubric=Rubric.named("paper"))
