"""Recipes of very small trainings that touch everything a run writes: rollouts, probes, checkpoints, a final model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import tiny_random
from opengrit.data import write


def small_recipe(folder: Path, *, name: str = "recipe.yaml", **train: Any) -> Path:
    """A recipe file beside its model, pictures and rows: six steps of two questions, two tries each, a checkpoint every second."""
    if not (folder / "base").exists():
        tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
        (folder / "pictures").mkdir()
        write(
            tiny_random.examples(folder / "pictures", 5), folder / "rows.jsonl", images=folder / "pictures"
        )
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
