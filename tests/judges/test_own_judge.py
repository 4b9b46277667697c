"""A judge of a user's own: every form of opinion, deadlines, and what breaks is named."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from opengrit import load_recipe
from opengrit.core.errors import JudgeError, RecipeError
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges import Case
from opengrit.judges.own import OwnJudge
from opengrit.judges.settings import open_judge
from opengrit.recipes.own_files import own_files
from opengrit.recipes.training_recipe import Recipe, parse_recipe

BASE = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"
CASES = [Case("How many?", expected="2", given=given) for given in ("2", "3", "two")]


def recipe(folder: Path, judge: str, code: str) -> Recipe:
    (folder / "mine.py").write_text(textwrap.dedent(code), encoding="utf-8")
    (folder / "recipe.yaml").write_text(BASE + f"judge: {judge}\n", encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def judge(folder: Path, how: str, code: str) -> OwnJudge:
    with open_judge(recipe(folder, how, code).judge) as found:
        assert isinstance(found, OwnJudge)
        return found


def test_true_and_false_a_verdict_and_unjudged_are_opinions(tmp_path):
    code = """
        from opengrit.rewards import Unjudged, Verdict

        def same(question, expected, given):
            return given == expected

        def graded(question, *, expected, given, half: str):
            if given == half:
                return Verdict(correct=False, score=0.5, judge="mine")
            return Unjudged("cannot say")
    """
    found = judge(tmp_path, "mine.py:same", code).judge_many(CASES[:2])
    assert found == [Verdict(True, 1.0, "same"), Verdict(False, 0.0, "same")]
    graded = judge(tmp_path, "{function: mine.py:graded, keywords: {half: two}}", code)
    assert graded.judge_many(CASES[1:]) == [Unjudged("cannot say"), Verdict(False, 0.5, "mine")]


def test_coroutines_are_awaited_together_and_what_is_late_is_unjudged(tmp_path):
    code = """
        import asyncio

        both = asyncio.Barrier(2)

        async def slow(question, *, expected, given):
            if given == "two":
                await asyncio.sleep(60)
            await asyncio.wait_for(both.wait(), 20)
            return True
    """
    found = judge(tmp_path, "mine.py:slow", code).judge_many(CASES, deadline_seconds=1.0)
    assert found[:2] == [Verdict(True, 1.0, "slow")] * 2
    assert found[2] == Unjudged("not judged within the deadline of 1 s")


def test_a_box_is_measured_and_never_put_before_it(tmp_path):
    found = judge(tmp_path, "mine.py:never", "def never(question, expected, given):\n    raise ValueError\n")
    assert isinstance(found.judge("Where?", expected="[1, 2, 3, 4]", given="there"), Unjudged)


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return 0.5", r"returned 0\.5"),
        ("return {}[given]", r"raised KeyError \('2'\)"),
        ("exit(0)", r"raised SystemExit \(0\)"),
    ],
)
def test_a_judge_that_breaks_is_named_with_the_answer_and_its_line(tmp_path, kind, body, what):
    with pytest.raises(
        JudgeError, match=rf"mine\.py:mine {what} for '2' where '2' is expected of 'How many\?'"
    ) as said:
        judge(tmp_path, "mine.py:mine", f"{kind} mine(question, expected, given):\n    {body}\n").judge_many(
            CASES
        )
    assert f"{tmp_path / 'mine.py'}:{1 if 'returned' in what else 2}" in str(said.value)


def test_the_section_of_another_judge_reads_as_before_and_that_of_a_function_comes_back(tmp_path):
    assert "function" not in parse_recipe(BASE).resolved_yaml()
    made = recipe(
        tmp_path,
        "{function: mine.py:f, keywords: {k: 1}}",
        "def f(question, expected, given, k): return True",
    )
    (tmp_path / "again.yaml").write_text(made.resolved_yaml())
    assert load_recipe(tmp_path / "again.yaml") == made
    assert [file.kept_name for file in own_files(made)] == ["mine.py"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mine.py", "a function of your own is my_file.py:my_function"),
        ("{kind: own}", "has a function, this one has none"),
        ("{kind: rule, function: 'mine.py:f'}", "the rule takes no function"),
        ("{kind: local, model: m, function: 'mine.py:f'}", "has no function and no keywords"),
        ("{function: 'mine.py:f', cache: c}", "a judge of your own takes no cache"),
    ],
)
def test_an_impossible_section_is_refused_with_its_line(tmp_path, how, message):
    with pytest.raises(RecipeError, match=rf"recipe\.yaml:3: .*{message}"):
        recipe(tmp_path, how, "")


def test_a_function_that_takes_something_else_is_refused(tmp_path):
    with pytest.raises(
        RecipeError, match=r"mine\.py:f is called with expected, given and is f\(question, answer\)"
    ):
        judge(tmp_path, "mine.py:f", "def f(question, answer): return True")
