"""Code of a user's own in real runs: it changes what is learned, goes with the run, and ends it where it breaks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from small_runs import small_recipe
from typer.testing import CliRunner

from opengrit import load_recipe
from opengrit.cli.app import app
from opengrit.core.errors import RewardError, RunError
from opengrit.runs.folder import RunDir
from opengrit.runs.origin import read_origin
from opengrit.training.run import train

SHORT_THOUGHT = """
def short_thought(attempt, *, half_at: int = 10):
    thought = attempt.transcript.thought
    return None if thought is None else 1.0 / (1.0 + len(thought.split()) / half_at)
"""
LEARNED = """
model: tiny-qwen2.5-vl
data: {train: [stickers/train20]}
rewards: {mine.py:short_thought: {weight: 1.0, half_at: 10}}
train: {max_steps: 4, num_generations: 8, questions_per_step: 8, per_device_train_batch_size: 64,
  learning_rate: 3.0e-4, lr_scheduler_type: constant, beta: 0.0, bf16: false, gradient_checkpointing: false,
  temperature: 1.0, max_completion_length: 100, seed: 0, save_steps: null, eval_steps: null}
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that rewards short thoughts by a file beside its recipe, which is deleted when it has ended."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(SHORT_THOUGHT)
    (folder / "recipe.yaml").write_text(LEARNED)
    run = train(load_recipe(folder / "recipe.yaml"), folder / "run", quiet=True)
    (folder / "mine.py").unlink()
    return run.path


def words(run: Path, step: int) -> float:
    """The mean number of words in the thoughts of a step."""
    thoughts = [r.transcript.thought for r in RunDir.open(run).records() if r.step == step]
    counted = [len(thought.split()) for thought in thoughts if thought is not None]
    assert len(counted) > 40  # of 64
    return sum(counted) / len(counted)


def test_a_run_that_rewards_short_thoughts_gets_shorter_ones(taught):
    assert words(taught, 4) < 0.6 * words(taught, 1)


def test_a_run_keeps_the_source_and_the_hash_and_reports_the_part_by_the_functions_name(taught):
    assert (taught / "own_code" / "mine.py").read_text() == SHORT_THOUGHT
    origin = read_origin(taught)
    assert origin is not None
    assert [(code.name, code.kept) for code in origin.own_code] == [("mine.py", "own_code/mine.py")]
    first = next(iter(RunDir.open(taught).metrics()))
    assert first["parts/short_thought"] == pytest.approx(first["reward"])
    assert load_recipe(taught / "recipe.yaml").rubric().own["short_thought"].keywords == {"half_at": 10}


def test_an_evaluation_and_its_probes_score_with_it_and_continue_with_the_same_source(taught, tmp_path):
    (tmp_path / "mine.py").write_text(SHORT_THOUGHT)
    (tmp_path / "rewards.yaml").write_text("rewards: {mine.py:short_thought: 1}")
    evaluation, probes = tmp_path / "eval", tmp_path / "probes"
    asked = ["eval", "--model", str(taught), "--data", "stickers/count", "--limit", "2", "--max-new-tokens", "60",
             "--out", str(evaluation), "--rewards", str(tmp_path / "rewards.yaml"), "--quiet"]  # fmt: skip
    run(*asked)
    scores = [record.score for record in RunDir.open(evaluation).records()]
    assert [list(score.parts) for score in scores] == [["short_thought"]] * 2
    (tmp_path / "mine.py").write_text(SHORT_THOUGHT.replace("1.0 +", "2.0 +"))
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert "resumes with the same code" in refused.output
    # Probes ask again with the copy that the evaluation kept.
    run("probe", str(evaluation), "--out", str(probes), "--probe", "keep", "--quiet")
    assert (probes / "own_code" / "mine.py").read_text() == SHORT_THOUGHT


def run(*words: str) -> None:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def scripted(folder: Path, code: str) -> Path:
    """A small recipe that weighs one reward, `mine`, of a file of that code."""
    path = small_recipe(folder, max_steps=2, save_steps=1, eval_steps=None)
    (folder / "mine.py").write_text(code)
    text = path.read_text()
    path.write_text(text.replace("tag_walk: 1.0", "tag_walk: 1.0\n  mine.py:mine: 1.0"))
    return path


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def mine(attempt):\n    if attempt.step == 2:\n        raise KeyError('late')\n    return 0.5", r"raised KeyError.*mine\.py:3"),
        ("def mine(attempt):\n    return float('nan')", r"returned nan.*mine\.py:1"),
        ("async def mine(attempt):\n    return 2", r"returned 2\.0.*mine\.py:1"),
    ],
)  # fmt: skip
def test_a_run_ends_with_the_reward_that_breaks_and_its_row(tmp_path, code, what):
    with pytest.raises(RewardError, match=rf"rewards\.mine\.py:mine {what}") as raised:
        train(load_recipe(scripted(tmp_path, code)), tmp_path / "run", quiet=True)
    assert re.search(r"the row '[^']+' of '[^']+' \('.+', picture .+\.png\)", str(raised.value))
    assert not (tmp_path / "run" / "final").exists()


def test_a_resume_refuses_where_the_source_has_changed_and_resumes_anyway_when_asked(tmp_path):
    path = scripted(tmp_path, "def mine(attempt):\n    return 0.25\n")
    out = tmp_path / "run"
    train(load_recipe(path), out, quiet=True)
    shutil.rmtree(out / "final")  # as if it had been stopped before its end
    shutil.rmtree(out / "checkpoints" / "step-000002")
    (tmp_path / "mine.py").write_text("def mine(attempt):\n    return 0.75\n")
    with pytest.raises(
        RunError, match=r"own code: mine\.py: SHA-256 \w{12} then, SHA-256 \w{12} now.*--resume-anyway"
    ):
        train(load_recipe(path), out, resume=True, quiet=True)
    train(load_recipe(path), out, resume_anyway=True, quiet=True)
    assert [p.name for p in sorted((out / "own_code").iterdir())] == ["mine.2.py", "mine.py"]
    parts = {r.step: r.score.parts["mine"] for r in RunDir.open(out).records()}
    assert parts == {1: 0.25, 2: 0.75}
    origin = read_origin(out)
    assert origin is not None
    assert origin.own_code[0].kept == "own_code/mine.2.py"
    assert load_recipe(out / "recipe.yaml").rubric().own["mine"].own.file.text.endswith("0.25\n") is False
