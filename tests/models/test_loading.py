"""Models load by name or folder, with the bounds asked for, and say clearly when they cannot."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from peft import LoraConfig, get_peft_model

from opengrit.core.boxes import Size
from opengrit.core.errors import ModelError
from opengrit.models import load
from opengrit.models.resolve import resolve
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler


@pytest.fixture
def qwen_folder(tmp_path):
    # The folder's name says another family: the config alone is to be believed.
    return tiny_random.save(tiny_random.qwen(), tmp_path / "internvl-3b")


def test_the_family_comes_from_the_config_and_not_from_the_folders_name(qwen_folder):
    loaded = load(str(qwen_folder))
    assert (loaded.family.model_type, loaded.frame, loaded.position_axes) == ("qwen2_5_vl", "qwen2_5_vl", 3)
    assert load(str(qwen_folder), frame="thousand").frame == "thousand"


def test_a_saved_model_loads_with_equal_weights(qwen_folder):
    ours, theirs = load(str(qwen_folder)).model.state_dict(), tiny_random.qwen().model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_folder_stands_for_its_final_model(tmp_path):
    tiny_random.save(tiny_random.internvl(), tmp_path / "run" / "final")
    assert resolve(str(tmp_path / "run")) == str(tmp_path / "run" / "final")
    assert load(str(tmp_path / "run")).family.model_type == "internvl"


def test_an_adapter_folder_loads_on_its_base_and_answers_differently(qwen_folder, tmp_path):
    model = get_peft_model(load(str(qwen_folder)).model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "adapter")
    question = [Asked("a", tiny_random.picture(tmp_path, "a.png", width=84, height=84), "yes")]
    said = [
        TransformersSampler(load(str(folder))).sample(
            question,
            samples_per_question=1,
            settings=SamplingSettings(temperature=0, max_new_tokens=8, stop=()),
        )
        for folder in (qwen_folder, tmp_path / "adapter")
    ]
    assert said[0] != said[1]


def test_the_seen_size_is_read_from_the_grid(qwen_folder, tmp_path):
    # Sides become multiples of 28: 100 = 3.57 x 28 -> 112, 60 = 2.14 x 28 -> 56; 112 x 56 lies within the bounds.
    sampler = TransformersSampler(load(str(qwen_folder)))
    path = tiny_random.picture(tmp_path, "a.png", width=100, height=60)
    assert sampler.prepare(Asked("a", path, "yes")).picture.seen_size == Size(112, 56)


def test_max_pixels_takes_effect_on_what_the_model_sees(qwen_folder, tmp_path):
    # 280 x 140 under 28 x 28 x 8 = 6,272 pixels: 112 x 56 = 6,272.
    path = tiny_random.picture(tmp_path, "a.png", width=280, height=140)
    sampler = TransformersSampler(load(str(qwen_folder), max_pixels=28 * 28 * 8))
    assert sampler.prepare(Asked("a", path, "yes")).picture.seen_size == Size(112, 56)


def test_min_pixels_takes_effect_on_what_the_model_sees(qwen_folder, tmp_path):
    path = tiny_random.picture(tmp_path, "a.png", width=28, height=28)
    sampler = TransformersSampler(load(str(qwen_folder), min_pixels=28 * 28 * 4))
    assert sampler.prepare(Asked("a", path, "yes")).picture.seen_size == Size(56, 56)


def test_max_tiles_takes_effect_and_fits_its_family_alone(qwen_folder, tmp_path):
    folder = tiny_random.save(tiny_random.internvl(), tmp_path / "tiles")
    path = tiny_random.picture(tmp_path, "a.png", width=224, height=56)
    question = Asked("a", path, "yes")
    tiles = [
        TransformersSampler(load(str(folder), max_tiles=n)).prepare(question).picture.inputs["pixel_values"]
        for n in (None, 1)
    ]
    assert [len(t) for t in tiles] == [5, 1]  # four tiles and the thumbnail; the whole picture as one
    with pytest.raises(ModelError, match="max_tiles"):
        load(str(qwen_folder), max_tiles=2)
    with pytest.raises(ModelError, match="max_pixels"):
        load(str(folder), max_pixels=28 * 28 * 8)


def test_impossible_pixel_bounds_are_refused(qwen_folder):
    with pytest.raises(ModelError, match="max_pixels"):
        load(str(qwen_folder), max_pixels=100)


def test_the_tokenizer_pads_on_the_left_whatever_its_files_say(tmp_path):
    loaded = tiny_random.qwen()
    loaded.processor.tokenizer.padding_side = "right"
    folder = tiny_random.save(loaded, tmp_path / "right")
    assert load(str(folder)).processor.tokenizer.padding_side == "left"


def test_every_end_token_ends_and_no_placeholder_is_written():
    loaded = tiny_random.qwen()
    tokenizer = loaded.processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert loaded.end_ids == tuple(sorted(ends))
    assert set(tokenizer.convert_tokens_to_ids(tiny_random.QWEN)) <= set(loaded.forbidden_ids)


@pytest.mark.parametrize("name", ["tiny-qwen3", "no/such/folder", "/no/such/folder", "./nothing", ""])
def test_an_unknown_model_is_one_clear_error(name):
    with pytest.raises(ModelError, match="packaged name"):
        resolve(name)


def test_an_empty_folder_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve(str(tmp_path))


def test_a_folder_without_weights_is_one_clear_error(qwen_folder):
    (qwen_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="complete"):
        load(str(qwen_folder))


def test_an_unknown_family_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="bert"):
        load(str(tmp_path))


def test_a_folder_that_is_called_as_a_hub_owner_hides_nothing_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "papers").mkdir(parents=True)
    assert resolve("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"


def test_a_misspelt_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "recipe.yaml").write_text("model: {name: toy}\n")
    with pytest.raises(ModelError, match=r"there is no nope in runs/; check the spelling"):
        resolve("runs/nope")
    assert resolve("owner/nope") == "owner/nope"


def test_a_training_that_has_not_ended_is_refused_with_its_newest_checkpoint(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="train: {}\n")
    with pytest.raises(ModelError, match="the folder that save_pretrained wrote"):
        resolve(str(run.path))
    for step in (2, 10):
        run.checkpoint_path(step).mkdir()
    for folder in (run.path, run.path / "checkpoints"):
        with pytest.raises(
            ModelError, match=r"has not ended; finish it with --resume, .*checkpoints/step-000010$"
        ):
            resolve(str(folder))
    (run.path / "final").mkdir()
    (run.path / "final" / "config.json").write_text("{}")
    assert resolve(str(run.path)) == str(run.path / "final")
    with pytest.raises(
        ModelError, match=r"for the trained model, or one checkpoint, .*checkpoints/step-000010$"
    ):
        resolve(str(run.path / "checkpoints"))
