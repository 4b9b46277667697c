"""Each door imports what it uses: which packages a command has loaded by the time it is done, not how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

# By the door that must not load them. transformers loads torch's compiler with any model, typer loads pydantic.
TENSORS = {"torch", "transformers", "torchvision", "peft", "accelerate", "trl", "datasets"}
TABLES = {"pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "numpy"}
SERVERS = {"fastapi", "uvicorn", "gradio", "openai", "httpx2", "httpx"}
TRAINING = {"trl", "peft", "datasets", "deepspeed", "tensorboard", "trackio", "wandb"}
OWN = {  # our own floors
    "ask": {"training", "reports", "experiments", "doctor", "serving", "recipes"},
    "light": {"training", "reports", "experiments", "serving", "sampling", "evaluation", "inference", "data"},
}  # fmt: skip

SCRIPT = """
import gc, json, sys
passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]) if phase == "stop" else None)
from opengrit.cli.app import app
try:
    app({arguments!r}, prog_name="opengrit")
except SystemExit as stopped:
    assert not stopped.code, stopped.code
own = {{name.removeprefix("opengrit.") for name in sys.modules if name.startswith("opengrit.")}}
print()
print(json.dumps([sorted({{name.split(".")[0] for name in sys.modules}}), sorted(own), passes.count(2)]))
"""


@dataclass(frozen=True, slots=True)
class Door:
    """What a process has loaded when its command is done, and how often Python looked through all objects for cycles."""

    packages: set[str]
    files: set[str]  # of ours, as in evaluation.rollout
    full_passes: int

    @property
    def floors(self) -> set[str]:
        return {name.split(".")[0] for name in self.files}


def opened(*arguments: str) -> Door:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packages, own, passes = json.loads(done.stdout.splitlines()[-1])
    return Door(set(packages), set(own), passes)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["ask", "--help"], ["train", "--help"]])
def test_help_and_version_load_no_library_of_tensors_tables_or_servers(arguments: list[str]) -> None:
    door = opened(*arguments)
    assert not door.packages & (TENSORS | TABLES | SERVERS | {"yaml", "PIL"})
    assert not door.floors & OWN["light"]


def test_checking_data_loads_no_model(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    row = {"question": "How many?", "answer": 1, "image": "a.png", "width": 20, "height": 10, "bboxs": []}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    door = opened("data", "check", str(tmp_path / "rows.jsonl"), "--images", str(tmp_path))
    assert not door.packages & (TENSORS | TABLES | SERVERS)
    assert not door.floors & {"training", "reports", "sampling", "inference", "serving"}


def test_a_question_loads_a_model_and_nothing_of_training_tables_or_reports(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    door = opened("ask", str(tmp_path / "a.png"), "How many dogs are there?", "--max-new-tokens", "4")
    assert door.packages >= {"torch", "transformers"}
    assert not door.packages & (TRAINING | TABLES - {"numpy"} | {"fastapi", "gradio", "openai"})
    assert not door.floors & OWN["ask"]
    assert not door.files & {"data.sources", "data.tables.convert", "evaluation.evaluator"}
    assert door.full_passes <= 2  # seven where the collector was not paused while libraries were imported


def test_an_evaluation_loads_nothing_of_training_servers_or_an_endpoint(tmp_path: Path) -> None:
    door = opened(
        *("eval", "--model", "tiny-qwen2.5-vl", "--data", "stickers/dev", "--limit", "1"),
        *("--max-new-tokens", "4", "--out", str(tmp_path / "run"), "--quiet"),
    )
    assert not door.packages & (TRAINING | {"pandas", "sklearn", "matplotlib", "fastapi", "gradio", "openai"})
    assert not door.floors & {"training", "experiments", "doctor", "serving", "inference"}
    assert door.full_passes <= 3


def test_a_command_leaves_what_was_imported_to_the_system_when_it_ends() -> None:
    script = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 10_000));"
        "import sys; sys.argv[1:] = ['--version'];"
        "from opengrit.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # Handlers run in reverse: the one that prints was registered first, and so comes after the one that freezes.
    assert done.stdout.splitlines()[-1] == "True"
