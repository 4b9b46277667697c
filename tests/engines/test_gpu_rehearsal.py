"""`benchmarks/gpu.sh --rehearse`: every part that will run on a GPU runs here, with the real vocabulary."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engines import ROOT, missing

pytestmark = pytest.mark.needs("vocabulary")


PARTS = ("device", "step", "decode", "memory", "attention", "four-bit")


def rehearsed(folder, *parts):
    """The page of these parts and what became of each; a test of them is skipped where the machine was too slow for one."""
    out = folder / "gpu.md"
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse", "--out", str(out), "--only", *parts]
    env = {name: value for name, value in os.environ.items() if name != "WHEELS"} | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert out.is_file(), done.stdout
    page = out.read_text()
    rows = page.split("## What became of each part")[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ")]
    states = {name: state for name, state in cells if name != "part"}
    if slow := [
        f"{name} {state}" for name, state in states.items() if state.startswith(("ran out", "not begun"))
    ]:
        pytest.skip(f"this machine was too slow for {'; '.join(slow)}")
    assert done.returncode == 0, page
    return page, {name: state.split(" (")[0] for name, state in states.items()}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page, states = rehearsed(tmp_path_factory.mktemp("gpu"), *PARTS)
    wanted = dict.fromkeys(PARTS, "measured")
    if missing("bitsandbytes"):
        wanted["four-bit"] = "not measured on this machine"
    assert states == wanted
    return page


def test_a_step_with_vllm_in_the_process_is_measured_by_both_trainers(tmp_path):
    if reason := missing("vllm"):
        pytest.skip(reason)
    page, states = rehearsed(tmp_path, "colocate")
    assert states == {"colocate": "measured"}
    for trainer in ("stock trl", "opengrit"):
        [row] = [line for line in page.splitlines() if line.startswith(f"| {trainer} |")]
        assert all(float(cell) > 0 for cell in row.strip("|").split("|")[1:]), row


def test_figures_are_where_they_belong(page):
    assert "released models', with 151,936 rows" in page
    assert "| **whole step** |" in page
    recipes = ["grit20-qwen2.5-vl-3b", "grit20-qwen2.5-vl-3b-24gb-lora", "grit20-internvl3-2b", "demo"]
    recipes += [] if missing("bitsandbytes") else ["grit20-qwen2.5-vl-3b-16gb-qlora"]
    for recipe in recipes:
        [row] = [line for line in page.splitlines() if line.startswith(f"| {recipe} |")]
        peaks = [float(cell) for cell in row.strip("|").split("|")[1:]]
        assert all(gb > 0 for gb in peaks[:5]), row


def test_the_trainers_packed_rows_have_transformers_log_probabilities(page):
    [row] = [line for line in page.splitlines() if "opengrit, packed rows" in line]
    assert float(row.strip("|").split("|")[3]) < 1e-4, row
