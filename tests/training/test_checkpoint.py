"""A checkpoint is whole or absent, and restores every tensor or nothing."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from opengrit.core.errors import ModelError, RunError
from opengrit.training.checkpoint import restore_weights, save_whole

FAMILIES = {
    "qwen": tiny_random.qwen,
    "tied qwen": lambda **how: tiny_random.qwen(tied=True, **how),
    "internvl": tiny_random.internvl,
}


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def tamper(folder, change, file="model.safetensors"):
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_weight_of_a_full_checkpoint_is_restored(family, tmp_path):
    trained, fresh = family(seed=1).model, family(seed=2).model
    trained.save_pretrained(tmp_path)
    assert not equal(weights(trained), weights(fresh))
    restore_weights(fresh, tmp_path)
    assert equal(weights(trained), weights(fresh))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_checkpoint_with_a_missing_tensor_restores_nothing(family, tmp_path):
    family(seed=1).model.save_pretrained(tmp_path)
    tamper(tmp_path, lambda tensors: tensors.pop(next(k for k in tensors if "mlp" in k or "proj" in k)))
    fresh = family(seed=2).model
    before = weights(fresh)
    with pytest.raises(ModelError, match="missing"):
        restore_weights(fresh, tmp_path)
    assert equal(before, weights(fresh))


def test_a_checkpoint_with_a_tensor_too_many_is_refused(tmp_path):
    tiny_random.qwen().model.save_pretrained(tmp_path)
    tamper(tmp_path, lambda tensors: tensors.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(2, 2)}))
    with pytest.raises(ModelError, match=r"left over 1: .*layers\.9"):
        restore_weights(tiny_random.qwen().model, tmp_path)


def test_a_checkpoint_with_a_tensor_of_another_shape_is_refused(tmp_path):
    tiny_random.qwen().model.save_pretrained(tmp_path)
    tamper(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(3, 32)}))
    with pytest.raises(ModelError, match=r"of another shape 1: lm_head.weight \[3, 32\] for"):
        restore_weights(tiny_random.qwen().model, tmp_path)


def test_a_torn_weights_file_is_refused(tmp_path):
    tiny_random.qwen().model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        ModelError, match=r"model.safetensors of .* is not .*; or resume from another checkpoint"
    ):
        restore_weights(tiny_random.qwen().model, tmp_path)


def adapted(seed):
    torch.manual_seed(seed)
    model = get_peft_model(tiny_random.qwen().model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_()
    return model


def test_every_weight_of_an_adapter_is_restored(tmp_path):
    trained, fresh = adapted(1), adapted(2)
    trained.save_pretrained(tmp_path)
    restore_weights(fresh, tmp_path)
    assert equal(weights(trained), weights(fresh))


def test_an_adapter_with_a_missing_tensor_is_refused(tmp_path):
    adapted(1).save_pretrained(tmp_path)
    tamper(tmp_path, lambda tensors: tensors.pop(next(iter(tensors))), "adapter_model.safetensors")
    with pytest.raises(ModelError, match="lora"):
        restore_weights(adapted(2), tmp_path)


def test_a_checkpoint_that_fails_to_be_written_is_not_there(tmp_path):
    def write(folder):
        (folder / "half").write_text("half")
        raise OSError("no space left")

    with pytest.raises(RunError, match=r"must be writable.*no space left.*--resume"):
        save_whole(tmp_path / "step-000001", write)
    assert not (tmp_path / "step-000001").exists()
    save_whole(tmp_path / "step-000001", lambda folder: (folder / "whole").write_text("whole"))
    assert [p.name for p in (tmp_path / "step-000001").iterdir()] == ["whole"]


def test_a_checkpoint_is_never_overwritten(tmp_path):
    save_whole(tmp_path / "step-000001", lambda folder: (folder / "a").write_text("first"))
    with pytest.raises(RunError, match="exists; choose another"):
        save_whole(tmp_path / "step-000001", lambda folder: (folder / "a").write_text("second"))
    assert (tmp_path / "step-000001" / "a").read_text() == "first"


def test_a_saved_file_can_be_read_by_those_who_can_read_its_folder(tmp_path):
    def write(staged):
        (staged / "secretive").write_text("x")
        (staged / "secretive").chmod(0o600)

    save_whole(tmp_path / "whole", write)
    folder_mode = (tmp_path / "whole").stat().st_mode
    assert (tmp_path / "whole" / "secretive").stat().st_mode & 0o777 == folder_mode & 0o666
