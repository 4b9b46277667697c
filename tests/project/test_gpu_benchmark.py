"""`benchmarks/gpu.py`: a part that fails or hangs is named and the others are measured; a signal loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# In place of the measurements: what each part does is chosen by its name.
PARTS = """
import sys, time
part = sys.argv[1]
print(f"| {part} | 1 |", flush=True)
if part == "step":
    raise ValueError("no such step")
if part in ("memory", "attention"):
    time.sleep(600)
"""
RUN = """
import pathlib, sys
sys.path.insert(0, sys.argv.pop(1))
import gpu
gpu.PARTS_SCRIPT = pathlib.Path(sys.argv.pop(1))
gpu.sees_gpu = lambda env: True
gpu.has = lambda python, package, env: package != "vllm"
sys.exit(gpu.main())
"""


@pytest.fixture
def command(tmp_path):
    parts = tmp_path / "parts.py"
    parts.write_text(PARTS)
    return [sys.executable, "-c", RUN, str(BENCHMARKS), str(parts), "--out", str(tmp_path / "gpu.md")]


def states(page: Path) -> dict[str, str]:
    """The last table: each part and what became of it."""
    rows = page.read_text().split("## What became of each part")[1].splitlines()
    cells = [
        row.strip("|").split("|") for row in rows if row.startswith("| ") and not row.startswith("| part")
    ]
    return {name.strip(): state.strip() for name, state in cells}


def test_a_part_that_fails_or_hangs_is_named_and_the_others_are_measured(command, tmp_path):
    parts = ["colocate", "step", "memory", "decode", "four-bit"]
    done = subprocess.run([*command, "--seconds", "16", "--only", *parts], capture_output=True, text=True)
    assert done.returncode == 1
    found = states(tmp_path / "gpu.md")
    assert list(found) == ["step", "decode", "memory", "four-bit", "colocate"]
    assert found["colocate"].startswith("not measured on this machine")
    assert found["step"].startswith("failed with 1: ValueError: no such step")
    assert found["memory"].startswith("ran out of its ")
    assert found["decode"].startswith("measured")
    assert found["four-bit"].startswith("measured")
    page = (tmp_path / "gpu.md").read_text()
    for part in ("step", "decode", "memory", "four-bit"):
        assert f"| {part} | 1 |" in page  # what it had measured is kept
    assert done.stdout == page


def test_a_signal_leaves_a_whole_page_and_no_process(command, tmp_path):
    page = tmp_path / "gpu.md"
    running = subprocess.Popen(
        [*command, "--only", "decode", "memory", "four-bit"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not (page.exists() and "| memory | 1 |" in page.read_text()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (1, b"")
    found = states(page)
    assert found["decode"].startswith("measured")
    assert (found["memory"], found["four-bit"]) == ("not finished", "not begun")
    assert "Ended: SIGTERM." in page.read_text()


def test_a_machine_without_a_gpu_is_refused_before_a_page_is_written(tmp_path):
    command = [str(BENCHMARKS / "gpu.sh"), "--out", str(tmp_path / "gpu.md")]
    env = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "WHEELS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 2
    assert "--rehearse" in done.stderr
    assert not (tmp_path / "gpu.md").exists()


def test_no_time_left_begins_nothing(command, tmp_path):
    done = subprocess.run([*command, "--seconds", "1", "--only", "decode"], capture_output=True, text=True)
    assert done.returncode == 1
    assert states(tmp_path / "gpu.md") == {"decode": "not begun, no time left"}
