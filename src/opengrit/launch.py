"""Several processes of one training on this machine: started together, ended together, and one voice for what went wrong."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from opengrit.errors import RecipeError, RunError
from opengrit.processes import Place

_REPORT = "OPENGRIT_REPORT"  # the file in which a process says what it died of
_BUG, _REFUSED, _INTERRUPTED, _TERMINATED = 1, 2, 130, 143  # exit codes
# Ends that every process comes to by itself, if one does: for the same reason, or because they agreed to stop.
_SHARED_ENDS = (_REFUSED, _INTERRUPTED, _TERMINATED)
_GRACE_SECONDS = 45.0  # for the others to come to such an end
_HURRIED_SECONDS = 10.0  # after a second signal


def launch(context: typer.Context, *, count: int) -> int:
    """Run the command of `context` in `count` processes of one training, and give its exit code when all have ended.

    Each gets every argument but `--num-processes`. The first has the terminal; what the others say is passed on with
    their name, once. SIGINT and SIGTERM go to all. Where one dies the others are ended at once: RunError names it.
    """
    if "RANK" in os.environ or "LOCAL_RANK" in os.environ:
        raise RecipeError(
            "processes are started by one launcher, --num-processes was given where torchrun, accelerate or srun has "
            "started them already; leave it out"
        )
    command = [str(context.info_name), *arguments(context, without="num_processes")]
    with tempfile.TemporaryDirectory() as reports:
        crew = Crew([_start(command, Place(n, count), reports=Path(reports)) for n in range(count)])
        with _forwarding(crew):
            crew.watch()
        return crew.verdict(Path(reports))


def arguments(context: typer.Context, *, without: str) -> list[str]:
    """The command line of `context`, written anew from its parsed values, without one of them."""
    written: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name == without or value is None or value is False:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            written += [str(one) for one in values]
        elif value is True:
            written.append(parameter.opts[0])
        else:
            written += [f"{parameter.opts[0]}={one}" for one in values]
    return written


def _start(command: Sequence[str], place: Place, *, reports: Path) -> subprocess.Popen[bytes]:
    if place.number == 0:
        os.environ["MASTER_PORT"] = str(_free_port())
    threads = str(max(1, (os.cpu_count() or 1) // place.count))
    ranks = {"RANK": place.number, "LOCAL_RANK": place.number}
    worlds = {"WORLD_SIZE": place.count, "LOCAL_WORLD_SIZE": place.count}
    return subprocess.Popen(
        # -P: a file in the working folder must not stand in for a module of the same name.
        [sys.executable, "-P", "-m", "opengrit.launch", *command],
        stdin=subprocess.PIPE,  # it closes when we end, however we do
        stdout=None if place.number == 0 else subprocess.PIPE,
        stderr=None if place.number == 0 else subprocess.STDOUT,
        start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and each process once, through us
        env={
            "OMP_NUM_THREADS": threads,
            **os.environ,
            **{name: str(number) for name, number in (ranks | worlds).items()},
            "MASTER_ADDR": "127.0.0.1",
            _REPORT: str(reports / str(place.number)),
        },
    )
