"""What a finished run hands on: its frame, and an adapter that finds its base on any machine."""

from __future__ import annotations

import json

import pytest
import tiny_random
import torch
from peft import get_peft_model

from opengrit.core.errors import DataError, ModelError, RecipeError
from opengrit.data import write
from opengrit.models import load
from opengrit.models.loading import load_for_inference, load_for_training, quantization_config
from opengrit.recipes.model_section import Model
from opengrit.recipes.sft_recipe import load_sft_recipe
from opengrit.recipes.training_recipe import load_recipe
from opengrit.training.checkpoint_sidecar import read_sidecar
from opengrit.training.run import train
from opengrit.training.settings import grpo_config, on_one_device
from opengrit.training.sft import fine_tune
from opengrit.training.trainable_weights import lora_config

SHORT = [
    "train.max_steps=1",
    "train.num_generations=2",
    "train.questions_per_step=2",
    "train.per_device_train_batch_size=4",
    "train.max_completion_length=40",
    "data.eval=[]",
]


def run(out, *changes):
    recipe = load_recipe("demo", [*SHORT, *changes])
    return train(recipe, out, quiet=True)


def test_a_frame_that_the_recipe_overrides_goes_with_the_trained_model(tmp_path):
    own = run(tmp_path / "own")
    assert load(str(own.path)).frame == "qwen2_5_vl"
    other = run(tmp_path / "other", "model.frame=thousand", "model.name=tiny-qwen2.5-vl")
    assert load(str(other.path)).frame == "thousand"
    assert load(str(other.path), frame="unit").frame == "unit"
    (checkpoint,) = other.checkpoints()
    assert load(str(checkpoint)).frame == "thousand"
    assert "opengrit.json" in read_sidecar(checkpoint).files
    # Trained on, it keeps the frame that it was trained in, though the recipe names none.
    more = run(tmp_path / "more", f"model={other.path}", "lora={r: 2}")
    for folder in (more.path, *more.checkpoints()):
        assert load(str(folder)).frame == "thousand"
        (resolved(folder) / "opengrit.json").unlink()
        assert load(str(folder)).frame == "thousand"  # its base's
    (other.path / "final" / "opengrit.json").write_text("{}")
    with pytest.raises(ModelError, match=r"opengrit.json names its frame, .*final/opengrit.json does not"):
        load(str(other.path))


def resolved(folder):
    return folder / "final" if (folder / "final").is_dir() else folder


def test_a_frame_goes_with_a_fine_tuned_model_too(tmp_path):
    words = "bf16: false, max_steps: 1, save_steps: 1, rows_per_step: 2, per_device_train_batch_size: 2"
    changes = ["model={name: tiny-qwen2.5-vl, frame: thousand}", "lora={r: 2}", f"sft={{{words}}}"]
    made = fine_tune(load_sft_recipe("sft-demo", changes), tmp_path / "run")
    (checkpoint,) = made.checkpoints()
    for folder in (made.path, checkpoint):
        assert load(str(folder)).frame == "thousand"
        assert base_of(resolved(folder)) == "tiny-qwen2.5-vl"


def base_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_an_adapter_names_its_base_as_the_recipe_does(tmp_path):
    made = run(tmp_path / "adapter", "lora={r: 2}")
    assert base_of(made.path / "final") == "tiny-qwen2.5-vl"
    assert [base_of(checkpoint) for checkpoint in made.checkpoints()] == ["tiny-qwen2.5-vl"]
    assert load(str(made.path)).family.model_type == "qwen2_5_vl"
    more = run(tmp_path / "more", f"model={made.path}", "lora=null", "train.learning_rate=0.001")
    assert base_of(more.path / "final") == "tiny-qwen2.5-vl"
    assert load(str(more.path)).family.model_type == "qwen2_5_vl"
    with pytest.raises(RecipeError, match="is itself an adapter"):
        run(tmp_path / "again", f"model={made.path}", "lora={r: 2}")
    assert not (tmp_path / "again").exists()


def test_resuming_a_run_without_a_checkpoint_says_that_it_starts_over(tmp_path, caplog):
    made = run(tmp_path / "run", "train.save_steps=null")
    (made.path / "final").rename(tmp_path / "elsewhere")
    with caplog.at_level("WARNING", logger="opengrit"):
        train(
            load_recipe("demo", [*SHORT, "train.save_steps=null"]),
            made.path,
            resume=True,
            quiet=True,
        )
    assert "starts at step 1" in caplog.text
    assert (made.path / "final" / "config.json").is_file()


def test_training_files_of_one_name_are_refused_before_anything_is_written(tmp_path):
    files = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        files.append(tmp_path / place / "train.jsonl")
        write(tiny_random.examples(tmp_path / place, 2), files[-1], images=tmp_path / place)
    with pytest.raises(DataError, match="ids are unique in one run, 'train:1' occurs more than once"):
        run(tmp_path / "run", f"data.train=[{files[0]}, {files[1]}]", "rewards={tag_walk: 1.0}")
    assert not (tmp_path / "run").exists()


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path):
    args = grpo_config(load_recipe("demo").train, tmp_path)
    args._n_gpu = 4  # what transformers counts, and then copies the model to all of them
    assert on_one_device(args).n_gpu == 1


def kinds(loaded):
    return {parameter.dtype for parameter in loaded.model.parameters()}


def test_weights_are_kept_in_the_numbers_that_the_recipe_names():
    assert kinds(load_for_training(Model(name="tiny-qwen2.5-vl"))) == {torch.float32}
    half = Model(name="tiny-qwen2.5-vl", dtype="bfloat16")
    assert kinds(load_for_training(half)) == kinds(load_for_inference(half)) == {torch.bfloat16}


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a machine without a GPU refuses 4 bits; this one has one"
)
def test_four_bits_without_what_they_need_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        RecipeError, match=r"needs (bitsandbytes, which is not installed|a GPU, this machine has none)"
    ):
        run(tmp_path / "run", "model.quantization=nf4", "lora={r: 2}")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="needs"):
        load_for_inference(Model(name="tiny-qwen2.5-vl", quantization="nf4"))


def test_four_bits_are_those_of_qlora():
    config = quantization_config()
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["tiny-qwen2.5-vl", "tiny-internvl3"])
def test_a_frozen_vision_tower_gets_no_adapter_and_the_language_model_does(name):
    recipe = load_recipe("demo", [f"model={name}", "lora={r: 2}", "freeze_vision=true"])
    loaded = load(name)
    adapted = get_peft_model(
        loaded.model, lora_config(recipe.lora, loaded.family, freeze_vision=recipe.freeze_vision)
    )
    learning = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert any(".language_model." in name for name in learning)
    assert not any(loaded.family.is_vision(name) for name in learning)
