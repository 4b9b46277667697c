"""Each door imports what it uses: which packages a command has loaded by the time it is done, not how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# By the door that must not load them. transformers loads torch's compiler and scipy with any model, typer loads pydantic.
TENSORS = {"torch", "transformers", "torchvision", "peft", "accelerate", "trl", "datasets"}
TABLES = {"pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "numpy"}
SERVERS = {"fastapi", "uvicorn", "gradio", "openai", "httpx2", "httpx"}
TRAINING = {"trl", "peft", "datasets", "deepspeed", "tensorboard", "trackio", "wandb"}
OWN = {  # our own floors
    "ask": {"training", "reports", "experiments", "doctor", "serving", "recipes"},
    "light": {"training", "reports", "experiments", "serving", "sampling", "evaluation", "inference", "data"},
}  # fmt: skip

SCRIPT = """
import json, sys
from opengrit.cli.app import app
try:
    app({arguments!r}, prog_name="opengrit")
except SystemExit as stopped:
    assert not stopped.code, stopped.code
own = {{name.split(".")[1] for name in sys.modules if name.startswith("opengrit.")}}
print()
print(json.dumps([sorted({{name.split(".")[0] for name in sys.modules}}), sorted(own)]))
"""


def loaded_by(*arguments: str) -> tuple[set[str], set[str]]:
    """The packages, and the floors of ours, that a process has loaded when the command is done."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packages, own = json.loads(done.stdout.splitlines()[-1])
    return set(packages), set(own)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["ask", "--help"], ["train", "--help"]])
def test_help_and_version_load_no_library_of_tensors_tables_or_servers(arguments: list[str]) -> None:
    packages, own = loaded_by(*arguments)
    assert not packages & (TENSORS | TABLES | SERVERS | {"yaml", "PIL"})
    assert not own & OWN["light"]


def test_checking_data_loads_no_model(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    row = {"question": "How many?", "answer": 1, "image": "a.png", "width": 20, "height": 10, "bboxs": []}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    packages, own = loaded_by("data", "check", str(tmp_path / "rows.jsonl"), "--images", str(tmp_path))
    assert not packages & (TENSORS | TABLES | SERVERS)
    assert not own & {"training", "reports", "sampling", "inference", "serving"}


def test_a_question_loads_a_model_and_nothing_of_training_tables_or_reports(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    packages, own = loaded_by(
        "ask", str(tmp_path / "a.png"), "How many dogs are there?", "--max-new-tokens", "4"
    )
    assert packages >= {"torch", "transformers"}
    assert not packages & (TRAINING | {"pandas", "sklearn", "matplotlib", "fastapi", "gradio", "openai"})
    assert not own & OWN["ask"]
