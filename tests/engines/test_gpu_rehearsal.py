"""`benchmarks/gpu.sh --rehearse`: every part that will run on a GPU runs here, with the real vocabulary."""

from __future__ import annotations

import os
import sys

import pytest

from engines import ROOT, missing, run

pytestmark = pytest.mark.needs("vocabulary")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "gpu.md"
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse", "--out", str(out)]
    env = os.environ | {"PYTHON": sys.executable}
    run(command, {name: value for name, value in env.items() if name != "WHEELS"})
    return out.read_text()


def test_every_part_is_measured_or_says_what_is_not_installed(page):
    rows = page.split("## What became of each part")[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ")]
    found = {name: state.split(" (")[0] for name, state in cells if name != "part"}
    engines = {"colocate": "vllm", "four-bit": "bitsandbytes"}
    parts = ("device", "colocate", "step", "decode", "memory", "attention", "four-bit")
    assert found == {
        part: "not measured on this machine" if part in engines and missing(engines[part]) else "measured"
        for part in parts
    }


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
