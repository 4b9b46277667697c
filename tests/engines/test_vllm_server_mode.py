"""TRL's server mode as far as a CPU goes: prompts and pictures to the server, its answers and scores back; not pushing weights."""

from __future__ import annotations

import json
import os

import pytest

from engines import PACKAGED, QUIET, ROOT, VLLM_PYTHON, environment, free_port, run, serving

pytestmark = pytest.mark.needs("vllm")

MODELS = ("tiny-qwen2.5-vl", "tiny-internvl3")


@pytest.mark.parametrize("model", MODELS)
def test_what_trl_s_server_answers_is_what_the_model_answers(model, tmp_path):
    port = free_port()
    command = [str(VLLM_PYTHON.parent / "trl"), "vllm-serve", "--model", str(PACKAGED / model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce_eager", "true"]
    command += ["--max_model_len", "1024", "--gpu_memory_utilization", "0.2"]
    url = f"http://127.0.0.1:{port}"
    with serving(command, url=f"{url}/health", log=tmp_path / "server.log", env=os.environ | QUIET):
        script = ROOT / "tests" / "engines" / "server_mode.py"
        said = run([str(VLLM_PYTHON), str(script), str(PACKAGED / model), url], environment(), timeout=300)
    made = json.loads(said.splitlines()[-1])
    assert len(made["here"]) == 12
    # Rounding may tip one of them.
    assert sum(a == b for a, b in zip(made["server"], made["here"], strict=True)) >= 11
    assert all(row and all(score <= 0 for score in row) for row in made["log_probs"])
