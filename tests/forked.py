"""The `opengrit` command in processes forked from one that has imported torch and TRL: a start costs a tenth of a second.

The process they are forked from has one thread of Python's and one of jemalloc's (pyarrow brings it; it has fork handlers).
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["opengrit.training", "opengrit.sft_trainer", "opengrit.cli"])
PATIENCE = 240.0  # seconds for what takes two; waiting ends with the condition


def command(
    *arguments: object,
    log: Path,
    before: Callable[[], Any] | None = None,
    environment: dict[str, str] | None = None,
) -> BaseProcess:
    """A process that runs the command, started; what it prints goes to `log`.

    `before` is called in it first, and what that returns, if anything, when the command has ended by itself.
    """
    words = [str(argument) for argument in arguments]
    process = _CONTEXT.Process(target=_run, args=(words, log, before, environment or {}), daemon=True)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The exit code of a process, waited for; below zero the signal that killed it."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"process {process.pid} did not end in {PATIENCE:g} s")
    return process.exitcode


def wait_for(condition: Callable[[], object], *, of: Sequence[BaseProcess] = ()) -> None:
    """Wait until the condition holds; fails where it does not in time, or where a process it waits for has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert all(process.is_alive() for process in of) or condition(), "a process ended early"
        time.sleep(0.005)


def _run(
    words: list[str], log: Path, before: Callable[[], Any] | None, environment: dict[str, str]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()
    os.environ.update({"COLUMNS": "200", **environment})
    from opengrit.cli import app

    after = None if before is None else before()
    try:
        app(words, prog_name="opengrit")
    finally:
        if after is not None:
            after()
