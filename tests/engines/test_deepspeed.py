"""The real DeepSpeed: the ZeRO-2 scenario of the distributed tests, its end included, and why ZeRO-3 is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import together

from engines import PACKAGED, ROOT, environment, free_port, run

pytestmark = pytest.mark.needs("deepspeed")


def test_two_processes_under_zero_2_learn_resume_and_end():
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "deepspeed"]
    said = run(
        [*command, str(ROOT / "tests" / "training" / "test_distributed.py")],
        environment("deepspeed"),
        timeout=600,
    )
    assert "1 passed" in said


ZERO_3 = together.ZERO_2 | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_USE_CPU": "true"}


def test_zero_3_is_refused_before_anything_is_written(tmp_path):
    command = [sys.executable, "-m", "opengrit", "train", "demo", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, env=environment("deepspeed", **ZERO_3), text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 2
    assert "ZeRO-3 is configured" in done.stderr
    assert not (tmp_path / "run").exists()


# What the refusal is for: outside the forward pass of its own module a weight is an empty tensor.
UNDER_ZERO_3 = """
import os, sys
import deepspeed, torch
from transformers import InternVLForConditionalGeneration
from transformers.integrations import HfDeepSpeedConfig

os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
deepspeed.init_distributed(dist_backend="gloo")
kept = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}})
model = InternVLForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float32)
weight = model.model.vision_tower.embeddings.patch_embeddings.projection.weight
print("shape outside a forward pass:", tuple(weight.shape))
try:
    model.model.vision_tower.embeddings.patch_embeddings.projection._conv_forward(torch.zeros(1, 3, 112, 112), weight, None)
except RuntimeError as error:
    print("a pass that reads it fails:", error)
with deepspeed.zero.GatheredParameters(list(model.parameters())):
    print("shape when it is gathered:", tuple(weight.shape))
"""


def test_under_zero_3_a_pass_that_runs_ahead_of_the_model_s_own_finds_no_weights():
    command = [sys.executable, "-c", UNDER_ZERO_3, str(PACKAGED / "tiny-internvl3"), str(free_port())]
    said = run(command, environment("deepspeed", DS_ACCELERATOR="cpu"), timeout=300)
    assert "shape outside a forward pass: (0,)" in said
    assert "a pass that reads it fails: " in said
    assert "shape when it is gathered: (128, 3, 14, 14)" in said
