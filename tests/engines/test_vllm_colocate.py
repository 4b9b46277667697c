"""A training whose rollouts a vLLM in the same process samples: it has to learn what the in-process sampler's learns."""

from __future__ import annotations

import json

import pytest

from engines import colocated, opengrit
from opengrit.runs.folder import RunDir

pytestmark = pytest.mark.needs("vllm")

MODELS = ("tiny-qwen2.5-vl", "tiny-internvl3")


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def settings(model, *, steps, seed=42):
    given = {
        "model": model,
        "train.max_steps": steps,
        "train.questions_per_step": 10,
        "train.per_device_train_batch_size": 80,
        "train.save_steps": "null",
        "train.seed": seed,
        "eval.max_completion_length": 120,
    }
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module", params=MODELS)
def runs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    common = settings(request.param, steps=3)
    colocated("train", "demo", *common, "--set", "train.vllm_mode=colocate", "--out", folder / "vllm")
    opengrit("train", "demo", *common, "--out", folder / "here")
    return folder / "vllm", folder / "here"


def test_the_first_step_learns_what_vllm_sampled(runs):
    first, *later = rows(runs[0])
    assert first["sampling/ratio"] == pytest.approx(1.0, abs=0.02)
    assert first["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=0.02)
    assert first["sampling/logp_difference"] < 0.01
    # And so do the later ones, of weights that were pushed: a vLLM that kept the old ones would be further off each time.
    for row in later:
        assert row["sampling/logp_difference"] < 0.02
        assert row["sampling/ratio"] == pytest.approx(1.0, abs=0.02)


def test_its_rewards_are_the_in_process_samplers(runs):
    vllm, here = (rows(out) for out in runs)
    for a, b in zip(vllm, here, strict=True):
        spread = (a["reward_std"] + b["reward_std"]) / 2
        # The means of 80 rewards each, with random numbers of their own: three standard errors of a difference.
        assert abs(a["reward"] - b["reward"]) < 3 * spread * (2 / 80) ** 0.5 + 0.05


def test_new_weights_are_used(runs):
    records = list(RunDir.open(runs[0]).records())
    assert {record.step for record in records} == {1, 2, 3}
    assert rows(runs[0])[0]["grad_norm"] > 0


def test_pictures_are_encoded_again_when_the_vision_tower_has_learned(tmp_path):
    """Great steps over the same questions: with pictures from the first step, vLLM would score tokens further and further off."""
    model = "tiny-internvl3"
    more = {"train.learning_rate": "2.0e-3", "freeze_vision": "false"}
    sets = [word for key, value in more.items() for word in ("--set", f"{key}={value}")]
    colocated(
        "train", "demo", *settings(model, steps=4), *sets, "--set", "train.vllm_mode=colocate", "--out", tmp_path / "run"
    )  # fmt: skip
    differences = [row["sampling/logp_difference"] for row in rows(tmp_path / "run")]
    assert len(differences) == 4
    assert max(differences) < 0.05
