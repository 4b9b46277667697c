"""Prompts: the paper's words to the letter, our own words with what they must hold."""

from __future__ import annotations

import json

import pytest

from opengrit.core.boxes import Size
from opengrit.core.errors import RecipeError
from opengrit.core.types import Section
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import (
    Strategy,
    detection_question,
    judge_prompt,
    user_text,
    user_turn,
    worked_example,
)

QUESTION = "How many zebras are pictured here?"


def test_the_grounded_prompt_is_the_papers_to_the_letter():
    assert user_text(Strategy.GROUNDED, QUESTION) == (
        "Question: How many zebras are pictured here? First, think between <think> and </think> while output "
        "necessary coordinates needed to answer the question in JSON with key 'bbox_2d'. Then, based on the "
        "thinking contents and coordinates, rethink between <rethink> </rethink> and then answer the question "
        "after <answer>.\n"
    )


def test_the_direct_prompt_is_the_question_alone():
    assert user_text("direct", QUESTION) == "Question: How many zebras are pictured here?"


def test_the_sft_prompt_asks_for_boxes_and_then_for_the_answer_without_thinking():
    text = user_text("sft", QUESTION)

    assert text.startswith("Question: How many zebras are pictured here? ")
    assert 0 < text.index("bbox_2d") < text.index("<answer>")
    assert "<think>" not in text


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl", "pixels", "unit"])
def test_the_worked_example_is_itself_in_full_format_in_the_familys_frame(family):
    text = user_text("grounded-icl", QUESTION, family=family)
    example = worked_example(family)
    frame = (
        Frame.named(family, Size(560, 392))
        if family in ("pixels", "unit")
        else Frame.for_model_type(family, seen_size=Size(560, 392))
    )

    assert text == user_text("grounded", QUESTION) + example
    transcript = parse(example, frame)
    assert [pointing.label for pointing in transcript.pointings] == ["cup", "cup", "cup"]
    assert {pointing.section for pointing in transcript.pointings} == {Section.THOUGHT}
    assert transcript.rethink
    assert transcript.answer == "3"
    # The first cup reaches from 1/16 to 3/16 of the width.
    box = transcript.pointings[0].box
    assert (box.left, box.right) == pytest.approx((1 / 16, 3 / 16), abs=1e-3)


def test_the_worked_example_writes_pixels_for_one_family_and_thousandths_for_another():
    assert "[35, 147, 105, 220]" in worked_example("qwen2_5_vl")  # 560 / 16 = 35
    assert "[62, 375, 188, 562]" in worked_example("internvl")


@pytest.mark.parametrize("family", [None, "llava", ""])
def test_a_worked_example_for_an_unknown_family_is_an_error_and_other_prompts_are_not(family):
    with pytest.raises(RecipeError, match="frame:"):
        user_text("grounded-icl", QUESTION, family=family)
    assert user_text("grounded", QUESTION, family=family) == user_text(Strategy.GROUNDED, QUESTION)


def test_a_misspelt_strategy_is_an_error_and_never_a_prompt_without_instruction():
    """A misspelt setting made the released code ask without any suffix (its bug 27)."""
    with pytest.raises(RecipeError, match=r"direct, grounded, grounded-icl, sft.*'grounded_thinking'"):
        user_text("grounded_thinking", QUESTION)


def test_a_prompt_is_one_user_turn_with_the_picture_first():
    assert user_turn(user_text(Strategy.DIRECT, QUESTION)) == [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": "Question: How many zebras are pictured here?"},
            ],
        }
    ]


def test_detection_is_asked_in_one_wording():
    assert detection_question("dogs") == "Detect all dogs."


def test_the_judge_sees_the_question_alone_and_the_three_lines_come_last():
    """The released code hands the judge the whole user text, format instruction included (its bug 3)."""
    text = judge_prompt(QUESTION, expected="7", given="seven")

    assert text.splitlines()[-3:] == [
        "Question: How many zebras are pictured here?",
        "Standard answer: 7",
        "Model's answer: seven",
    ]
    for needed in ("proofread", "full mark is 1", "minimum is 0", "JSON", '{"score": <score>}'):
        assert needed in text
    assert "<think>" not in text


def test_the_reply_the_judge_is_asked_for_is_json():
    text = judge_prompt(QUESTION, expected="7", given="seven")
    form = text[text.index("{") : text.index("}") + 1]

    assert json.loads(form.replace("<score>", "1")) == {"score": 1}
