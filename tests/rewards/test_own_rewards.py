"""Rewards from files and packages of a user's own: found from the recipe, called in every form, and named when they break."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from opengrit import load_recipe
from opengrit.core.boxes import Size
from opengrit.core.errors import RecipeError, RewardError
from opengrit.core.types import Completion, Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.recipes.own_files import own_files
from opengrit.recipes.training_recipe import Recipe
from opengrit.rewards import Attempt, Rubric

FRAME = Frame.for_model_type("internvl", seen_size=Size(1000, 1000))
EXAMPLE = Example("c-1", "How many dogs?", "2", "photos/dogs.png", "mine", Size(100, 100))
SMALL = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"


def attempt(text: str, *, step: int | None = None) -> Attempt:
    return Attempt(EXAMPLE, Completion(text), parse(text, FRAME), Verdict(True, 1.0), step)


SHORT, LONG = attempt("<think>two</think><answer>2"), attempt("<think>one and two</think><answer>2")


def recipe(folder: Path, rewards: str, code: str, *, file: str = "mine.py") -> Recipe:
    """A recipe in a folder, beside the file that it names."""
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(textwrap.dedent(code), encoding="utf-8")
    (folder / "recipe.yaml").write_text(SMALL + f"rewards: {rewards}\n", encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def rubric(folder: Path, rewards: str, code: str) -> Rubric:
    return recipe(folder, rewards, code).rubric()


# -- from the recipe to the function ------------------------------------------------------------------------------


def test_a_file_beside_the_recipe_is_found_from_any_working_folder_and_reported_by_the_functions_name(
    tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code = "def words(attempt):\n    return len(attempt.transcript.thought.split()) / 10\n"
    found = rubric(tmp_path, "{correct: 1.0, mine.py:words: 0.5}", code).score(LONG)
    assert found.parts == {"correct": 1.0, "words": 0.3}
    assert found.total == 1.0 + 0.5 * 0.3


def test_a_module_that_can_be_imported_is_named_with_dots(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "colours.py").write_text(
        "def red(attempt, *, target):\n    return float(target == 'red')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = recipe(tmp_path, "{my_package.colours:red: {weight: 0.5, target: red}}", "")
    assert made.rubric().score(SHORT).total == 0.5
    assert [file.kept_name for file in own_files(made)] == ["my_package.colours.py"]


def test_reading_a_recipe_executes_nothing_and_using_it_executes_a_file_once(tmp_path):
    made = recipe(
        tmp_path,
        "{mine.py:a: 1, mine.py:b: 1}",
        "with open(__file__ + '.ran', 'a') as log: log.write('x')\ndef a(attempt): return 0.0\ndef b(attempt): return 1.0\n",
    )
    own_files(made)
    assert not (tmp_path / "mine.py.ran").exists()
    made.rubric()
    made.rubric()
    assert (tmp_path / "mine.py.ran").read_text() == "x"


def test_two_files_of_one_name_do_not_share_a_module(tmp_path):
    for folder, value in (("a", 0.25), ("b", 0.75)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def {folder}(attempt): return {value}\n")
    made = recipe(tmp_path, "{a/mine.py:a: 1, b/mine.py:b: 1}", "")
    assert made.rubric().score(SHORT).parts == {"a": 0.25, "b": 0.75}
    with pytest.raises(RecipeError, match="have the same name; rename one"):
        own_files(made)


def test_the_recipe_keeps_what_was_written_and_the_runs_copy_takes_the_place_of_a_file_that_is_gone(tmp_path):
    made = recipe(
        tmp_path,
        "{code/mine.py:one: {weight: 1, k: 0.5}}",
        "def one(attempt, k): return k\n",
        file="code/mine.py",
    )
    run = tmp_path / "run"
    (run / "own_code").mkdir(parents=True)
    (run / "recipe.yaml").write_text(made.resolved_yaml())
    (run / "own_code" / "mine.py").write_text("def one(attempt, k): return k / 2\n")
    again = load_recipe(run / "recipe.yaml")
    assert again == made
    assert again.hash() == made.hash()
    assert str(tmp_path) not in made.resolved_yaml()
    assert (made.rubric().score(SHORT).total, again.rubric().score(SHORT).total) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("rewards", "code", "message"),
    [
        ("{mine.py:lenght: 1}", "def length(attempt): return 1.0", "no function 'lenght'; did you mean length"),
        ("{mine.py:length: 1}", "def length(attempt) return 1.0", r"SyntaxError .*fix .*mine\.py:1$"),
        ("{mine.py:length: 1}", "\nimport no_such_module", r"ModuleNotFoundError .*fix .*mine\.py:2$"),
        ("{mine.py:length: 1}", "\nimport sys\nsys.exit(0)", r"SystemExit \(0\); fix .*mine\.py:3$"),
        ("{other.py:length: 1}", "", r"is relative to the recipe's folder .*'other\.py:length' names .*check the path"),
        ("{no_such_package.rewards:length: 1}", "", r"no_such_package\.rewards is not .*or name its file \(rewards\.py:length\)"),
        ("{mine.py:correct: 1}", "def correct(attempt): return 1.0", "has the name of another reward; rename"),
        ("{mine.py:f: {weight: 1, colour: red}}", "def f(attempt, *, target='red'): return 1.0", "unexpected keyword argument 'colour'"),
        ("{mine.py:f: 1}", "def f(attempt, *, target): return 1.0", "missing a required argument: 'target'"),
        ("{mine.py:f: {weight: 1, k: three}}", "def f(attempt, *, k: int): return 1.0", r"k of mine\.py:f is 'three' \(input should be a valid integer"),
        ("{mine.py:f: 1}", "def f(attempt): return 1.0\nf.range = (1, 0)", r"the smaller first, that of mine\.py:f is \(1, 0\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_loads(tmp_path, rewards, code, message):
    with pytest.raises(RecipeError, match=message):
        rubric(tmp_path, rewards, code)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ("{mine.py: 1}", r"must name a reward, got 'mine.py'; one of your own is my_file\.py:my_function"),
        ("{mine.py:f: {k: 1}}", r"rewards\.mine\.py:f\.weight is required"),
        ("{mine.py:f: {weight: true}}", "no true or false"),
        ("{correct: {weight: 1, k: 1}}", "correct takes no keywords but weight and where, got k"),
        ("{mine.py:f: 0}", "at least one reward needs a weight other than 0"),
    ],
)
def test_a_reward_that_is_written_wrongly_is_refused_with_its_line(tmp_path, rewards, message):
    with pytest.raises(RecipeError, match=rf"(?s)recipe\.yaml:3: .*{message}"):
        recipe(tmp_path, rewards, "")


# -- what a reward may be -----------------------------------------------------------------------------------------


def test_a_range_of_its_own_the_step_none_and_unjudged(tmp_path):
    code = """
        from opengrit.rewards import Unjudged, reward

        @reward(range=(-2, 2))
        def late(attempt):
            return -2.0 if attempt.step is None else attempt.step / 10

        def silent(attempt):
            return None

        def lost(attempt):
            return Unjudged("the detector is down")
    """
    made = rubric(tmp_path, "{mine.py:late: 1, mine.py:silent: 1}", code)
    assert [made.score(attempt("x", step=step)).total for step in (None, 5)] == [-2.0, 0.5]
    unmeasured = rubric(tmp_path, "{mine.py:late: 1, mine.py:lost: 1}", code).score(SHORT)
    assert (unmeasured.total, unmeasured.missing) == (None, "the detector is down")


def test_asynchronous_rewards_of_a_batch_are_awaited_together(tmp_path):
    # Each waits until all six have begun: one after the other, none would return before its time is over.
    code = """
        import asyncio

        all_here = asyncio.Barrier(6)

        async def first(attempt):
            await asyncio.wait_for(all_here.wait(), 20)
            return 0.25

        async def second(attempt, *, value: float):
            await asyncio.wait_for(all_here.wait(), 20)
            return value

        class Third:
            async def __call__(self, attempt):
                return 0.0

        third = Third()
    """
    made = rubric(
        tmp_path, "{mine.py:first: 1, mine.py:second: {weight: 1, value: 0.5}, mine.py:third: 1}", code
    )
    assert [score.total for score in made.score_all([SHORT, LONG, SHORT])] == [0.75] * 3
    assert [score.total for score in made.score_all([SHORT, LONG, SHORT])] == [0.75] * 3  # on the same loop


def test_a_batched_reward_sees_the_attempts_together_and_must_value_each(tmp_path):
    code = """
        import numpy

        from opengrit.rewards import reward

        @reward(batched=True)
        def longest(attempts):
            sizes = [len(a.transcript.text) for a in attempts]
            return [float(size == max(sizes)) for size in sizes]

        @reward(batched=True)
        def counted(attempts):
            return numpy.arange(len(attempts)) / 10

        @reward(batched=True)
        async def one_short(attempts):
            return [1.0] * (len(attempts) - 1)
    """
    made = rubric(tmp_path, "{mine.py:longest: 1}", code)
    assert [score.total for score in made.score_all([SHORT, LONG])] == [0.0, 1.0]
    counted = rubric(tmp_path, "{mine.py:counted: 1}", code)
    assert [score.total for score in counted.score_all([SHORT, LONG])] == [0.0, 0.1]
    with pytest.raises(RewardError, match="returned 1 of them for 2 attempts"):
        rubric(tmp_path, "{mine.py:one_short: 1}", code).score_all([SHORT, LONG])


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        ("text = attempt.transcript.text\n    return helper(text)", 3, r"raised ZeroDivisionError \(division by zero\)"),
        ("return float('nan')", 5, "returned nan"),
        ("return 1.5", 5, r"returned 1\.5"),
        ("return '1'", 5, "returned '1'"),
        ("exit(0)", 6, r"raised SystemExit \(0\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_reward_that_breaks_is_named_with_its_row_its_picture_its_file_and_its_line(
    tmp_path, kind, body, line, what
):
    code = f"\ndef helper(text):\n    return 1 / 0\n\n{kind} mine(attempt):\n    {body}\n"
    with pytest.raises(RewardError, match=what) as raised:
        rubric(tmp_path, "{mine.py:mine: 1}", code).score(SHORT)
    said = str(raised.value)
    assert "rewards.mine.py:mine" in said
    assert "the row 'c-1' of 'mine' ('How many dogs?', picture photos/dogs.png)" in said
    assert f"({tmp_path / 'mine.py'}:{line})" in said
    assert "\n" not in said


def test_an_unjudged_verdict_reaches_a_reward_as_it_is(tmp_path):
    code = "def judged(attempt):\n    return attempt.verdict if hasattr(attempt.verdict, 'reason') else 1.0\n"
    seen = Attempt(EXAMPLE, Completion("2"), parse("2", FRAME), Unjudged("down"))
    assert rubric(tmp_path, "{mine.py:judged: 1}", code).score(seen).missing == "down"
