"""The `opengrit` command in processes forked from one that has imported torch and TRL: a start costs a tenth of a second.

The process they are forked from has one thread of Python's, and one of jemalloc's that waits (pyarrow brings it; jemalloc
has handlers for a fork).
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "opengrit.training.run",
        "opengrit.training.sft",
        "opengrit.experiments.run",
        "opengrit.cli.app",
        "openai.resources.chat",  # loaded when a client is first used
    ]
)
PATIENCE = 240.0  # seconds for what takes two; waiting ends with the condition


@dataclass
class Running:
    """A command under way. What it prints (a few lines) waits in a pipe, which no full disk and no size limit reaches."""

    process: BaseProcess
    _reader: Connection
    _said: list[bytes] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def code(self) -> int:
        """The exit code, waited for; below zero the signal that killed it."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"the command did not end in {PATIENCE:g} s: {self.said}")
        return self.process.exitcode

    @property
    def said(self) -> str:
        """Everything it has printed, once it has ended."""
        if not self._reader.closed:
            while chunk := os.read(self._reader.fileno(), 65536):
                self._said.append(chunk)
            self._reader.close()
        return b"".join(self._said).decode()


def command(
    *arguments: object,
    before: Callable[[], Any] | None = None,
    environment: dict[str, str] | None = None,
) -> Running:
    """The command, started in a process of its own.

    `before` is called in it first, and what that returns, if anything, when the command has ended by itself.
    """
    reader, writer = _CONTEXT.Pipe(duplex=False)
    words = [str(argument) for argument in arguments]
    process = _CONTEXT.Process(target=_run, args=(words, writer, before, environment or {}), daemon=True)
    process.start()
    writer.close()
    return Running(process, reader)


def wait_for(condition: Callable[[], object], *, of: Sequence[Running] = ()) -> None:
    """Wait until the condition holds; fails where it does not in time, or where a process it waits for has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert all(running.process.is_alive() for running in of) or condition(), "a process ended early"
        time.sleep(0.005)


def _run(
    words: list[str], writer: Connection, before: Callable[[], Any] | None, environment: dict[str, str]
) -> None:
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    writer.close()
    faulthandler.enable()
    gc.freeze()  # what was there before the fork is not looked through, and so not copied
    os.environ.update({"COLUMNS": "1000", **environment})
    from opengrit.cli.app import app

    after = None if before is None else before()
    try:
        app(words, prog_name="opengrit")
    finally:
        if after is not None:
            after()
