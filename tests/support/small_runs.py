"""Recipes of very small trainings that touch everything a run writes: rollouts, probes, checkpoints, a final model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_random
import yaml

from opengrit.data import write
from opengrit.runs.folder import RunDir
from opengrit.training.checkpoint_sidecar import check_files, read_sidecar


def small_recipe(folder: Path, *, name: str = "recipe.yaml", **train: Any) -> Path:
    """A recipe file beside its model, pictures and rows: six steps of two questions, two tries each, a checkpoint every second."""
    if not (folder / "base").exists():
        tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
        (folder / "pictures").mkdir()
        write(tiny_random.examples(folder / "pictures", 5), folder / "rows.jsonl", images=folder / "pictures")
    source = {"file": str(folder / "rows.jsonl"), "images": str(folder / "pictures")}
    settings = {
        "max_steps": 6, "num_generations": 2, "questions_per_step": 2, "per_device_train_batch_size": 2,
        "max_completion_length": 24, "learning_rate": 0.01, "lr_scheduler_type": "linear", "beta": 0.0, "bf16": False,
        "gradient_checkpointing": False, "seed": 3, "save_steps": 2, "eval_steps": 2,
    }  # fmt: skip
    recipe = {
        "model": str(folder / "base"),
        "data": {"train": [source], "eval": [source]},
        "rewards": {"tag_walk": 1.0, "answer_tag": 0.5, "repetition": 0.25},
        "strategy": "direct",
        "train": settings | train,
        "eval": {"max_completion_length": 8},
    }
    (folder / name).write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / name


def resuming(out: Path) -> list[str]:
    """The option to resume, where there is a run to resume."""
    return ["--resume"] if (out / "recipe.yaml").exists() else []


def check_readable(out: Path) -> None:
    """Every checkpoint that has its name is whole, every record that has its line is one."""
    if not (out / "recipe.yaml").exists():  # killed before there was a run
        return
    run = RunDir.open(out)
    for path in run.checkpoints():
        sidecar = read_sidecar(path)
        assert sidecar is not None
        check_files(path, sidecar)
        assert sidecar.step == run.step_of(path)
    list(run.records())
    list(run.metrics())


def check_same_weights(out: Path, whole: Path) -> None:
    """The same weights, to the byte, at each checkpoint of another run and at the end."""
    checkpoints = RunDir.open(whole).checkpoints()
    for folder in (*(path.relative_to(whole) for path in checkpoints), Path("final")):
        file = folder / "model.safetensors"
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file


def check_equal(out: Path, whole: Path) -> None:
    """The same weights, rollouts and measurements as those of another run."""
    check_same_weights(out, whole)
    ours, theirs = RunDir.open(out), RunDir.open(whole)
    assert {r.id: r for r in ours.records()} == {r.id: r for r in theirs.records()}
    assert _measured(ours) == _measured(theirs)


def _measured(run: RunDir) -> dict[tuple[int, bool], dict[str, Any]]:
    """The last row of each step, and of each step's probe, without what the clock says."""
    found = {}
    for row in run.metrics():
        is_probe = any(name.startswith("eval/") for name in row)
        found[row["step"], is_probe] = {k: v for k, v in row.items() if not of_the_clock(k)}
    return found


def of_the_clock(name: str) -> bool:
    """Whether a metric says how long something took, which is never the same twice."""
    return name in ("step_time", "tokens_per_second") or name.startswith("seconds/")
