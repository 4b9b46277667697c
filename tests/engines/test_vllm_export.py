"""What `opengrit export` writes is served by stock vLLM and answers as the run's own model does."""

from __future__ import annotations

import pytest

from engines import opengrit, vllm_server
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.yaml import parse
from opengrit.runs.folder import RunDir
from opengrit.training.sft import fine_tune

pytestmark = pytest.mark.needs("vllm")

MODEL = "tiny-internvl3"
RECIPE = f"""
model: {MODEL}
data: {{train: [stickers/train20]}}
sft: {{bf16: false, gradient_checkpointing: false, max_steps: 4, learning_rate: 0.003}}
lora: {{r: 4}}
"""
QUESTIONS = 48


def test_a_merged_adapter_answers_as_the_run_does(tmp_path, record_property):
    run = fine_tune(parse(SftRecipe, RECIPE), tmp_path / "run")
    opengrit("export", run.path, "--out", tmp_path / "exported")
    common = ("--data", "stickers/count", "--limit", QUESTIONS, "--max-new-tokens", 160, "--quiet")
    with vllm_server(MODEL, tmp_path, weights=tmp_path / "exported") as url:
        asked = ("--model", MODEL, "--endpoint", url, "--frame", "internvl")
        opengrit("eval", *asked, *common, "--out", tmp_path / "vllm")
    opengrit("eval", "--model", run.path, *common, "--out", tmp_path / "here")
    opengrit("eval", "--model", MODEL, *common, "--out", tmp_path / "base")
    texts = {
        which: {r.id: r.completion.text for r in RunDir.open(tmp_path / which).records()}
        for which in ("vllm", "here", "base")
    }
    same = sum(texts["vllm"][name] == text for name, text in texts["here"].items())
    changed = sum(texts["base"][name] != text for name, text in texts["here"].items())
    record_property(
        "found",
        f"export: {same} of {QUESTIONS} texts by vLLM are the run's own, {changed} of which the base writes otherwise",
    )
    assert len(texts["here"]) == QUESTIONS
    assert same >= QUESTIONS - 1  # one token of equal likelihood may fall the other way
    assert changed > QUESTIONS // 4
