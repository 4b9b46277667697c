"""QLoRA with the real bitsandbytes: 4-bit weights, 8-bit optimizer states, saved, resumed and loaded again."""

from __future__ import annotations

import json

import pytest

from engines import opengrit
from opengrit.runs.folder import RunDir

pytestmark = pytest.mark.needs("bitsandbytes")

SETTINGS = {
    "model.quantization": "nf4",
    "lora": "{r: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}",
    "freeze_vision": "true",
    "train.optim": "adamw_8bit",
    "train.learning_rate": "1.0e-3",
    "train.questions_per_step": 4,
    "train.per_device_train_batch_size": 32,
    "train.save_steps": 2,
    "eval.max_completion_length": 80,
}


def train(model, out, *more, steps=3):
    given = {"model": model, "train.max_steps": steps, **SETTINGS}
    sets = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    return opengrit("train", "demo", *sets, "--out", out, *more, overlays=("bitsandbytes",))


@pytest.fixture(scope="module", params=["tiny-qwen2.5-vl", "tiny-internvl3"])
def trained(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    train(request.param, out)
    return request.param, out


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_steps_in_four_bits_have_gradients_and_rewards(trained):
    _, out = trained
    assert [row["step"] for row in rows(out)] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 and row["reward"] > 0 for row in rows(out))
    config = json.loads((out / "final" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 32)


def tensors(held):
    """Every tensor of one parameter's state, which newer versions put into a dictionary of its own."""
    import torch

    for value in held.values():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            yield from tensors(value)


def test_optimizer_states_are_in_eight_bits(trained):
    import torch

    _, out = trained
    state = torch.load(RunDir.open(out).checkpoints()[0] / "optimizer.pt", weights_only=True)["state"]
    kinds = {tensor.dtype for one in state.values() for tensor in tensors(one)}
    assert torch.uint8 in kinds


def test_the_adapter_answers_as_it_did_when_it_was_trained(trained):
    _, out = trained
    again = out.parent / "again"
    opengrit(
        "eval",
        "--model",
        out,
        "--data",
        "stickers/dev",
        "--limit",
        8,
        "--max-new-tokens",
        80,
        "--quiet",
        "--out",
        again,
    )
    assert len(list(RunDir.open(again).records())) == 8


def test_a_stopped_training_in_four_bits_resumes_to_the_same_end(trained, tmp_path):
    name, out = trained
    short = tmp_path / "short"
    train(name, short)
    for checkpoint in RunDir.open(short).checkpoints()[1:]:
        import shutil

        shutil.rmtree(checkpoint)
    shutil.rmtree(short / "final")
    train(name, short, "--resume")
    assert rows(short)[-1]["reward"] == rows(out)[-1]["reward"]
