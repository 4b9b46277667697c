"""What a finished run hands on: its frame, and an adapter that finds its base on any machine."""

from __future__ import annotations

import json

import pytest

from opengrit.config import load_recipe
from opengrit.errors import RecipeError
from opengrit.models import load
from opengrit.training import train

SHORT = [
    "train.max_steps=1",
    "train.num_generations=2",
    "train.questions_per_step=2",
    "train.per_device_train_batch_size=4",
    "train.max_completion_length=40",
    "data.eval=[]",
]


def run(out, *changes):
    recipe = load_recipe("recipes/demo.yaml", [*SHORT, *changes])
    return train(recipe, out, quiet=True)


def test_a_frame_that_the_recipe_overrides_goes_with_the_trained_model(tmp_path):
    own = run(tmp_path / "own")
    assert load(str(own.path)).frame == "qwen2_5_vl"
    other = run(tmp_path / "other", "model.frame=thousand", "model.name=tiny-qwen2.5-vl")
    assert load(str(other.path)).frame == "thousand"
    assert load(str(other.path), frame="unit").frame == "unit"


def test_an_adapter_names_its_base_as_the_recipe_does(tmp_path):
    made = run(tmp_path / "adapter", "lora={r: 2}")
    recorded = json.loads((made.path / "final" / "adapter_config.json").read_text())
    assert recorded["base_model_name_or_path"] == "tiny-qwen2.5-vl"
    assert load(str(made.path)).family.model_type == "qwen2_5_vl"
    with pytest.raises(RecipeError, match="is an adapter itself"):
        run(tmp_path / "again", f"model={made.path}", "lora={r: 2}")
    assert not (tmp_path / "again").exists()


def test_resuming_a_run_without_a_checkpoint_says_that_it_starts_over(tmp_path, caplog):
    made = run(tmp_path / "run", "train.save_steps=null")
    (made.path / "final").rename(tmp_path / "elsewhere")
    with caplog.at_level("WARNING", logger="opengrit"):
        train(
            load_recipe("recipes/demo.yaml", [*SHORT, "train.save_steps=null"]),
            made.path,
            resume=True,
            quiet=True,
        )
    assert "starts at its first step" in caplog.text
    assert (made.path / "final" / "config.json").is_file()
