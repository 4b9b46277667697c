"""The code on docs/rewards.md is run as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opengrit import Recipe, load_recipe
from opengrit.core.boxes import Size
from opengrit.core.types import Completion, Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import AskedFor, asked_for, strategy_named
from opengrit.judges.settings import open_judge
from opengrit.rewards import Attempt

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
BASE = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page: pieces of one file are joined."""
    for text in blocks("python"):
        name = re.match(r"# (\w+\.py)", text)[1]
        with (tmp_path / name).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
    return tmp_path


def recipe(folder: Path, text: str) -> Recipe:
    (folder / "recipe.yaml").write_text(BASE + text, encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def test_every_rewards_section_of_the_page_makes_a_rubric(folder):
    found = [recipe(folder, text).rubric() for text in blocks("yaml") if text.startswith("rewards:")]
    assert [list(one.weights) for one in found][1:] == [
        ["correct", "grounding_iou", "box_count"],
        ["correct", "short_thought"],
    ]


def test_the_rewards_of_the_page_return_what_they_say(folder):
    names = ("short_thought", "one_box", "rare_answer", "detector_agrees")
    made = recipe(folder, "rewards: {" + ", ".join(f"my_rewards.py:{name}: 1" for name in names) + "}")
    example = Example("c", "How many dogs?", "2", "c.png", "mine", Size(100, 100))
    frame = Frame.for_model_type("internvl", seen_size=Size(1000, 1000))
    attempts = [
        Attempt(example, Completion(text), parse(text, frame), Verdict(True, 1.0))
        for text in ("<think>" + "a " * 20 + "</think><answer>2", "<answer>2", "<think>(1, 2, 3, 4)</think>")
    ]
    parts = [score.parts for score in made.rubric().score_all(attempts)]
    assert [one["short_thought"] for one in parts] == [0.5, None, 1 / (1 + 4 / 20)]
    assert [one["one_box"] for one in parts] == [0.0, 0.0, 1.0]
    assert [one["rare_answer"] for one in parts] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert [one["detector_agrees"] for one in parts] == [None] * 3


def test_the_judges_and_the_prompt_of_the_page_do_what_they_say(folder):
    first, second = (recipe(folder, text) for text in blocks("yaml") if text.startswith("judge:"))
    with open_judge(first.judge) as graded, open_judge(second.judge) as within:
        assert graded.judge("?", expected="two", given="ten").score == 0.5
        assert within.judge("?", expected="2", given="2.4") == Verdict(True, 1.0, "within")
        assert isinstance(within.judge("?", expected="2", given="two"), Unjudged)
    (prompted,) = [text for text in blocks("yaml") if text.startswith("strategy:")]
    (folder / "my_prompt.txt").write_text("{question} Say <answer>.")
    assert strategy_named(recipe(folder, prompted).strategy).trial.endswith("Say <answer>.")
    found = strategy_named(f"{folder / 'my_prompt.py'}:prompt")
    assert asked_for(found) == AskedFor(answer_tag=True, boxes=True)
