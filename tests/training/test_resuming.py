"""A run resumes as it was, or the difference is shown; and only what a recipe gives up is ever deleted."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_trainers
import torch
from small_runs import small_recipe

from opengrit.core.errors import RecipeError, RunError
from opengrit.models import load
from opengrit.recipes.training_recipe import load_recipe
from opengrit.runs.folder import RunDir, environment_facts
from opengrit.training.checkpoint import save_whole
from opengrit.training.checkpoint_sidecar import SIDECAR, read_sidecar, write_sidecar
from opengrit.training.resume import Inputs, Resume, locked_start
from opengrit.training.retention import prune_checkpoints
from opengrit.training.run import train

STEPS = "train.max_steps"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and in `run` two steps of it, all but for the final model."""
    folder = tmp_path_factory.mktemp("resuming")
    train(load_recipe(small_recipe(folder, max_steps=2)), folder / "finished", quiet=True)
    shutil.copytree(folder / "finished", folder / "run")
    shutil.rmtree(folder / "run" / "final")
    return folder


def copied(scene: Path, tmp_path: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(scene / name, tmp_path / "run"))


def change(checkpoint: Path, **values: Any) -> None:
    written = json.loads((checkpoint / SIDECAR).read_text())
    (checkpoint / SIDECAR).write_text(json.dumps(written | values))


def test_a_checkpoint_says_what_wrote_it_and_where_it_stands(scene: Path) -> None:
    run = RunDir.open(scene / "run")
    (checkpoint,) = run.checkpoints()
    found = read_sidecar(checkpoint)
    assert found is not None
    # Five rows, two a step: three generation batches an epoch.
    assert (found.step, found.cycle_step) == (2, 0)
    assert found.data_order == {"epoch": 0, "batch": 2, "rows": 5, "seed": 3}
    assert found.random_states == ("rng_state.pth",)
    assert (found.run, found.recipe, found.world_size) == (run.id, run.recipe, 1)
    assert found.packages == environment_facts()["packages"]
    assert found.judge_cache is None
    assert set(found.files) == {p.name for p in checkpoint.iterdir()} - {SIDECAR}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "processes": ({"world_size": 2}, r"processes: 2 then, 1 now"),
    "version": ({"packages": {"torch": "1.0"}}, r"torch: 1.0 then, \S+ now; transformers: not there then"),
    "cycle": ({"cycle_step": 1}, r"its rollouts had been used for 1 step\(s\), and are lost"),
    "recipe": ({"recipe": "train: {seed: 8}\n"}, r"recipe: train.seed: 8 then, 3 now"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_each_difference_is_shown_and_stops_a_resume(name: str, scene: Path, tmp_path: Path) -> None:
    values, message = OTHERS[name]
    out = copied(scene, tmp_path)
    change(out / "checkpoints" / "step-000002", **values)
    wanted = load_recipe(scene / "recipe.yaml")
    with pytest.raises(RunError, match=rf"{message}.*--resume-anyway"):
        train(wanted, out, resume=True)
    with locked_start(
        out,
        recipe=wanted.resolved_yaml(),
        resume=Resume.asked(resume=False, anyway=True),
        inputs=Inputs({}, wanted.model.name),
    ) as start:
        assert start.checkpoint == out / "checkpoints" / "step-000002"
        assert start.differences


def test_a_package_that_changes_no_step_stops_no_resume(scene: Path, tmp_path: Path) -> None:
    out = copied(scene, tmp_path)
    checkpoint = out / "checkpoints" / "step-000002"
    packages = json.loads((checkpoint / SIDECAR).read_text())["packages"]
    change(checkpoint, packages=packages | {"pillow": "0.1"})
    wanted = load_recipe(scene / "recipe.yaml")
    with locked_start(
        out, recipe=wanted.resolved_yaml(), resume=Resume(wanted=True), inputs=Inputs({}, wanted.model.name)
    ) as start:
        assert not start.differences


def test_a_checkpoint_that_does_not_say_what_wrote_it_is_taken_anyway_only(
    scene: Path, tmp_path: Path
) -> None:
    out = copied(scene, tmp_path)
    (out / "checkpoints" / "step-000002" / SIDECAR).unlink()
    with pytest.raises(RunError, match=r"does not say what wrote it.*--resume-anyway"):
        train(load_recipe(scene / "recipe.yaml"), out, resume=True)


def test_another_recipe_is_refused_with_its_keys_and_taken_anyway_and_written_down(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = copied(scene, tmp_path)
    longer = load_recipe(scene / "recipe.yaml", [f"{STEPS}=4"])
    with pytest.raises(RunError, match=r"resumes with its own recipe.*train.max_steps: 2 then, 4 now"):
        train(longer, out, resume=True)
    first = (out / "recipe.yaml").read_bytes()
    with caplog.at_level("WARNING", logger="opengrit"):
        run = train(longer, out, resume_anyway=True, quiet=True)
    assert "resumed anyway: recipe: train.max_steps: 2 then, 4 now" in caplog.text
    assert (out / "recipe.yaml").read_bytes() == first
    assert run.recipe == (out / "recipe.2.yaml").read_text() == longer.resolved_yaml()
    environments = [json.loads((out / f"environment{n}.json").read_text()) for n in ("", ".2")]
    assert environments[1]["resumed_anyway"] == ["recipe: train.max_steps: 2 then, 4 now"]
    assert environments[0]["run"] == environments[1]["run"] == run.id
    assert [run.step_of(path) for path in run.checkpoints()] == [2, 4]
    # From here on it is the run's recipe, also for the older checkpoint; the first one is not any more.
    shutil.rmtree(out / "final")
    shutil.rmtree(out / "checkpoints" / "step-000004")
    assert (train(longer, out, resume=True, quiet=True).path / "final").is_dir()
    with pytest.raises(RunError, match=r"train.max_steps: 4 then, 2 now"):
        train(load_recipe(scene / "recipe.yaml"), out, resume=True)


def test_a_finished_run_is_not_trained_on(scene: Path) -> None:
    longer = load_recipe(scene / "recipe.yaml", [f"{STEPS}=4"])
    for anyway in (False, True):  # what would not help is not proposed
        with pytest.raises(RunError, match="a finished run cannot be continued"):
            train(longer, scene / "finished", resume=True, resume_anyway=anyway)


def test_a_finished_run_says_that_nothing_was_trained_and_starts_from_no_checkpoint(
    scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, out = load_recipe(scene / "recipe.yaml"), scene / "finished"
    with caplog.at_level("INFO", logger="opengrit"):
        train(recipe, out, resume=True)
    assert f"{out} is finished (it has its final/); nothing was trained" in caplog.text
    for named in ("step-000002", "step-9"):
        with pytest.raises(RunError, match=r"start a new run with model: \S+/checkpoints/step-000002 and"):
            train(recipe, out, resume_from=named)


def test_a_checkpoint_is_a_model_that_can_be_loaded_and_the_last_is_the_trained_one(scene: Path) -> None:
    run = RunDir.open(scene / "finished")
    models = [load(str(folder)) for folder in (run.path, run.checkpoint_path(2))]
    assert models[0].frame == models[1].frame
    trained, kept = (model.model.state_dict() for model in models)
    assert trained.keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.items())


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(scene: Path) -> None:
    with pytest.raises(RunError, match=r"has no step-000003; it has step-000002"):
        train(load_recipe(scene / "recipe.yaml"), scene / "run", resume_from="step-000003")


class Evil:
    """What runs code when a pickle of it is read."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._marker,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_no_file_of_a_checkpoint_runs_code(name: str, tmp_path: Path) -> None:
    run = small_trainers.new_run(tmp_path)
    small_trainers.trainer(tmp_path, run=run, save_strategy="steps", save_steps=1, max_steps=1).train()
    (checkpoint,) = run.checkpoints()
    torch.save(Evil(tmp_path / "marker"), checkpoint / name)
    again = small_trainers.trainer(tmp_path, run=run)
    with pytest.raises(pickle.UnpicklingError):
        again.train(resume_from_checkpoint=str(checkpoint))
    assert not (tmp_path / "marker").exists()


# -- which checkpoints stay ---------------------------------------------------------------------------------------


def checkpoint(run: RunDir, step: int, *, of: str | None = None) -> Path:
    """A checkpoint of one file, as a run writes it."""

    def write(folder: Path) -> None:
        for name in ("weights", "trainer_state.json"):
            (folder / name).write_text("x" * 9)
        write_sidecar(
            folder, step=step, cycle_step=0, data_order={}, run=of or run.id, recipe="a: 1\n", world_size=1
        )

    save_whole(run.checkpoint_path(step), write)
    return run.checkpoint_path(step)


def names(run: RunDir) -> list[int]:
    return [run.step_of(path) for path in run.checkpoints()]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", recipe="a: 1\n")


def test_the_newest_stay_and_the_best(run: RunDir) -> None:
    for step in (2, 4, 6, 8, 10):
        checkpoint(run, step)
    assert prune_checkpoints(run, keep=2, best={4: 0.9, 6: 0.2, 10: 0.1}) == [
        run.checkpoint_path(step) for step in (2, 6)
    ]
    assert names(run) == [4, 8, 10]
    prune_checkpoints(run, keep=2)
    assert names(run) == [8, 10]
    prune_checkpoints(run, keep=2)
    assert names(run) == [8, 10]


def test_of_two_that_are_as_good_the_newer_is_the_best(run: RunDir) -> None:
    for step in (2, 4, 6):
        checkpoint(run, step)
    prune_checkpoints(run, keep=1, best={2: 0.5, 4: 0.5})
    assert names(run) == [4, 6]


def test_a_checkpoint_of_another_run_or_without_a_sidecar_is_neither_counted_nor_deleted(
    run: RunDir,
) -> None:
    checkpoint(run, 2, of="another")
    (checkpoint(run, 4) / SIDECAR).unlink()
    for step in (6, 8):
        checkpoint(run, step)
    prune_checkpoints(run, keep=1)
    assert names(run) == [2, 4, 8]


def test_a_damaged_checkpoint_does_not_count_so_that_the_last_good_one_stays(run: RunDir) -> None:
    checkpoint(run, 2)
    checkpoint(run, 4)
    (checkpoint(run, 6) / "weights").write_text("half")
    prune_checkpoints(run, keep=1)
    assert names(run) == [4, 6]


def test_a_run_of_an_earlier_version_has_no_name_and_deletes_nothing(run: RunDir) -> None:
    for step in (2, 4):
        checkpoint(run, step)
    facts = json.loads((run.path / "environment.json").read_text())
    del facts["run"]
    (run.path / "environment.json").write_text(json.dumps(facts))
    assert prune_checkpoints(run, keep=1) == []


def test_a_deletion_that_was_broken_off_leaves_nothing_that_counts(run: RunDir) -> None:
    for step in (2, 4):
        checkpoint(run, step)
    run.checkpoint_path(2).rename(run.path / "checkpoints" / ".staged-removed-step-000002")
    assert names(run) == [4]
    checkpoint(run, 2)
    prune_checkpoints(run, keep=1)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-000004"]


def test_a_training_keeps_what_its_recipe_says(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, max_steps=8, keep_checkpoints=1, keep_best="format")
    run = train(load_recipe(recipe), tmp_path / "run", quiet=True)
    measured = {
        row["step"]: value
        for row in run.metrics()
        for name, value in row.items()
        if name.startswith("eval/") and name.endswith("/format")
    }
    assert sorted(measured) == [2, 4, 6, 8]
    best = max(measured, key=lambda step: (measured[step], step))
    assert names(run) == sorted({best, 8})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.keep_best=accuracy"], "without keep_checkpoints all checkpoints are kept"),
        (
            ["train.keep_best=accuracy", "train.keep_checkpoints=2"],
            "make save_steps a multiple of eval_steps",
        ),
        (
            ["train.keep_best=accuracy", "train.keep_checkpoints=2", "train.eval_steps=5", "data.eval=[]"],
            "keep_best needs evaluation data",
        ),
    ],
)
def test_a_best_checkpoint_that_nothing_measures_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", changes)
