"""docs/python.md runs from its first line to its last in a new process, and nothing but what it prints is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opengrit import Run, evaluate
from opengrit.core.errors import RecipeError, RunError

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
LIGHT = "import sys\nassert not {'torch', 'transformers', 'trl', 'pandas', 'datasets'} & set(sys.modules), 'heavy'\n"


def test_every_line_of_the_page_runs_and_libraries_print_nothing(tmp_path: Path) -> None:
    first, *rest = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join([first, LIGHT, *rest]), encoding="utf-8")
    source = str(Path(sys.modules["opengrit"].__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1 tiny-qwen2.5-vl",
        "model:",
        "runs/python 2 0.0001",
        "[1, 2]",
        "Answer 168 x 112",
        "stickers/count 4 True",
        "python.html",
        "evaluate",
    ]
    assert "<html" in (tmp_path / "python.html").read_text(encoding="utf-8")


def test_what_cannot_be_done_is_said_as_the_commands_say_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds recipe\.yaml"):
        Run.open(tmp_path)
    with pytest.raises(RecipeError, match="strategy: input should be 'direct'"):
        evaluate("tiny-qwen2.5-vl", "stickers/count", out=tmp_path / "out", strategy="grouned")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").write_text("train: {}\n")
    with pytest.raises(RunError, match="has a model when its training has ended"):
        _ = Run.open(tmp_path / "unfinished").model
