"""The rewards that ask again: earned, not earned, and the cheapest way to cheat each."""

from __future__ import annotations

import pytest

from opengrit.core.boxes import Size
from opengrit.core.errors import RecipeError
from opengrit.core.types import Completion, Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.recipes.training_recipe import parse_recipe
from opengrit.rewards.evidence import hidden, kept
from opengrit.rewards.protocol import Attempt, SecondAnswer, SecondAnswers
from opengrit.rewards.rubric import Rubric

FRAME = Frame.for_model_type("internvl", seen_size=Size(1000, 1000))
COUNTING = Example("c", "How many dogs are there?", "2", "c.png", "tallyqa", Size(100, 100))
WHERE = Example("w", "Where is the dog?", "[1, 2, 3, 4]", "w.png", "ovd", Size(100, 100))
RIGHT, WRONG, OUTAGE = Verdict(True, 1.0), Verdict(False, 0.0), Unjudged("the judge is down")
TEXT = "<think>(0, 0, 100, 100)</think><answer>2"


def attempt(
    verdict: Verdict | Unjudged,
    with_boxes_only: SecondAnswer,
    without_boxes: SecondAnswer,
    example: Example = COUNTING,
) -> Attempt:
    second = SecondAnswers(with_boxes_only, without_boxes)
    return Attempt(example, Completion(TEXT), parse(TEXT, FRAME), verdict, 1, second)


@pytest.mark.parametrize(
    ("verdict", "with_boxes_only", "without_boxes", "pays"),
    [
        (RIGHT, RIGHT, WRONG, (1.0, 1.0)),  # its boxes are enough, and needed
        (RIGHT, RIGHT, RIGHT, (1.0, 0.0)),
        (RIGHT, WRONG, WRONG, (0.0, 1.0)),
        (RIGHT, WRONG, RIGHT, (0.0, 0.0)),
        (WRONG, RIGHT, WRONG, (0.0, 0.0)),  # a wrong answer needs no evidence
        (RIGHT, None, None, (0.0, 0.0)),  # no boxes, too large ones, or a second answer that was cut off
        (OUTAGE, RIGHT, WRONG, (OUTAGE, OUTAGE)),
        (RIGHT, OUTAGE, WRONG, (OUTAGE, 1.0)),
        (WRONG, OUTAGE, OUTAGE, (0.0, 0.0)),
    ],
)
def test_an_answer_is_paid_for_needing_its_boxes_and_for_needing_no_more(
    verdict: Verdict | Unjudged, with_boxes_only: SecondAnswer, without_boxes: SecondAnswer, pays: tuple
) -> None:
    one = attempt(verdict, with_boxes_only, without_boxes)
    assert (kept(one), hidden(one)) == pays


def test_kept_is_cheated_by_boxes_over_all_that_is_allowed_and_hidden_by_boxes_over_what_matters() -> None:
    # Nearly the whole picture in view: still right; all of it in grey: no longer. Only the area that is allowed bounds it.
    assert (kept(attempt(RIGHT, RIGHT, WRONG)), hidden(attempt(RIGHT, RIGHT, WRONG))) == (1.0, 1.0)


def test_they_say_nothing_where_the_answer_is_a_box() -> None:
    assert (kept(attempt(OUTAGE, None, None, WHERE)), hidden(attempt(OUTAGE, None, None, WHERE))) == (
        None,
        None,
    )


def test_an_attempt_of_which_nothing_was_asked_again_is_not_measured() -> None:
    rubric = Rubric({"kept": 1.0, "hidden": 1.0, "tag_pairs": 1.0})
    one = Attempt(COUNTING, Completion(TEXT), parse(TEXT, FRAME), RIGHT)
    score = rubric.score(one)
    assert score.total is None
    assert "second questions of a training with asking_again" in (score.missing or "")
    assert rubric.of_first_answers().score(one).total == 0.5  # half of the tags


BASE = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewards: {correct: 1, kept: 0.5}\nasking_again: {}", "kept alone favours the largest boxes.*set hidden: 0.5 too"),
        ("rewards: {correct: 1, kept: 0.5, hidden: 0}\nasking_again: {}", "hidden earns nothing"),
        ("rewards: {correct: 1, hidden: 0.5}", "add asking_again: {}"),
        ("rewards: paper\nasking_again: {}", "rewards names neither"),
        ("rewards: {kept: 1, hidden: 1}\nasking_again: {max_covered: 0}", "greater than 0"),
    ],
)  # fmt: skip
def test_second_questions_and_the_rewards_that_need_them_go_together(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(BASE + text)


def test_hidden_alone_is_allowed_and_second_questions_have_defaults() -> None:
    recipe = parse_recipe(BASE + "rewards: {correct: 1, hidden: 0.5}\nasking_again: {}")
    section = recipe.asking_again
    assert section is not None
    assert (section.strategy, section.max_completion_length, section.max_covered) == ("direct", 8, 0.5)
