"""The commands of a documentation page, run in their order as a reader pastes them, with less to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from typer.testing import CliRunner

from opengrit.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
# Added to a command: one step of a few questions where the page trains for minutes, two rows where it measures hundreds.
_STEP = {"max_steps": 1, "questions_per_step": 2, "per_device_train_batch_size": 16, "max_completion_length": 40}  # fmt: skip
_LESS = {
    "train": [word for key, value in _STEP.items() for word in ("--set", f"train.{key}={value}")],
    "eval": ["--limit", "2", "--max-new-tokens", "20"],
    "ask": ["--max-new-tokens", "20"],
}


def commands_of(page: str) -> list[str]:
    """The lines of a page's indented blocks that call `opengrit`, continued lines joined."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ {4}(opengrit .*)$", text, re.MULTILINE)


def run_commands(page: str, *, left_out: Iterable[str] = ()) -> list[str]:
    """Runs the page's commands in the working folder; what each printed. `left_out` are beginnings of those that are not run.

    Every one of `left_out` must begin a command, and every other command must end with exit code 0.
    """
    left_out = tuple(left_out)
    lines = commands_of(page)
    assert all(any(line.startswith(one) for line in lines) for one in left_out), (page, left_out)
    printed = []
    for line in lines:
        if line.startswith(left_out):
            continue
        words = shlex.split(line, comments=True)[1:]
        done = CliRunner().invoke(app, [*words, *_LESS.get(words[0], [])])
        assert done.exit_code == 0, (page, line, done.output, done.exception)
        printed.append(done.output)
    assert printed, page
    return printed
