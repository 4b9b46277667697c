"""Several processes of one training on this machine: started together, ended together, and one voice for what went wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import typer

from opengrit.core.errors import RecipeError, RunError

REPORT = "OPENGRIT_REPORT"  # names the file in which a process says what it died of
BUG, _REFUSED, _INTERRUPTED, _TERMINATED = 1, 2, 130, 143  # exit codes
# Ends that every process comes to by itself if one does: for the same reason, or because they agreed to stop.
_SHARED_ENDS = (_REFUSED, _INTERRUPTED, _TERMINATED)
_GRACE_SECONDS = 45.0  # for the others to come to such an end
_ECHO_SECONDS = 2.0  # for others to end of what one has failed of as well
_HURRY_SECONDS = 10.0  # for all to end after a second signal
_BEAT_SECONDS = 0.1


def launch(context: typer.Context, *, count: int) -> int:
    """Run the command of `context` in `count` processes of one training; the training's exit code.

    Each gets every argument but `--num-processes`. Raises RunError as `run_together` does.
    """
    if "RANK" in os.environ or "LOCAL_RANK" in os.environ:
        raise RecipeError(
            f"processes are started by one launcher, --num-processes is {count} and torchrun, accelerate or srun has "
            "started them already; leave it out"
        )
    # -P: a file in the working folder must not stand in for a module of the same name.
    ours = [sys.executable, "-P", "-m", "opengrit.cli.worker", str(context.info_name)]
    return run_together([*ours, *arguments(context, without="num_processes")], count=count)


def run_together(command: Sequence[str], *, count: int) -> int:
    """Run `command` in `count` processes with the environment that torchrun gives; their exit code, when all have ended.

    The first has the terminal; what the others say is passed on with their name. SIGINT and SIGTERM go to all of them.
    Where one is lost the others are ended at once, and RunError names it.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        workers = [_Worker(command, rank, count=count, port=port, folder=folder) for rank in range(count)]
        try:
            with _signals_go_to(workers) as received:
                _wait(workers, received)
        finally:
            for worker in workers:
                worker.end()
        return _exit_code(workers, received)


def arguments(context: typer.Context, *, without: str) -> list[str]:
    """The command line of `context`, written anew from its values, without one of its options."""
    written: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name == without or value is None or value is False:
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            written += map(str, values)
        elif value is True:
            written.append(parameter.opts[0])
        else:
            written += [word for one in values for word in (parameter.opts[0], str(one))]
    return written


class _Signal(NamedTuple):
    number: int
    at: float  # time.monotonic(), which is the same clock in every process


class _Worker:
    """One of the processes; all but the first are listened to."""

    def __init__(self, command: Sequence[str], rank: int, *, count: int, port: int, folder: str) -> None:
        self.rank, self.name = rank, f"process {rank + 1} of {count}"
        self.refusals: list[str] = []  # its error lines: mostly those of every process
        self.was_ended = False  # by us
        self._report = Path(folder) / str(rank)
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": count,
            "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            REPORT: self._report,
        }
        threads = str(max(1, (os.cpu_count() or 1) // count))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, however it does
            stdout=subprocess.PIPE if rank else None,
            stderr=subprocess.STDOUT if rank else None,
            start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on once
            env={
                "OMP_NUM_THREADS": threads,
                **os.environ,
                **{name: str(value) for name, value in own.items()},
            },
        )
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Passes on what the process says, line by line, until it says no more."""
        for line in self.process.stdout or ():
            text = line.decode("utf-8", "replace").rstrip()
            if text.startswith("error: "):
                self.refusals.append(text)
            elif text:
                typer.echo(f"{self.name}: {text}", err=True)

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self.process.poll()

    @property
    def failed(self) -> bool:
        return self.code not in (None, 0) and not self.was_ended

    @property
    def killed_by(self) -> int:
        """The signal that ended it, 0 for none."""
        return max(0, -(self.code or 0))

    def cause(self) -> dict[str, Any] | None:
        """What it died of (`at`, of time.monotonic(), and `text`), where it could say so."""
        return json.loads(self._report.read_text()) if self._report.is_file() else None

    def end(self) -> None:
        """Ends it now. What it has written is whole: checkpoints are renamed into place, lines are appended whole."""
        if self.code is None:
            self.was_ended = True
            self.process.kill()
            self.process.wait()
        self._listener.join(1.0)  # longer only where a process of its own still has the pipe


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _signals_go_to(workers: Sequence[_Worker]) -> Iterator[list[_Signal]]:
    """Passes SIGINT and SIGTERM on, and yields the list of those received; an ignored one stays ignored."""
    received: list[_Signal] = []

    def pass_on(number: int, _: Any) -> None:
        received.append(_Signal(number, time.monotonic()))
        for worker in workers:
            if worker.code is None:
                worker.process.send_signal(number)

    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in handled}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(workers: Sequence[_Worker], received: Sequence[_Signal]) -> None:
    """Until all have ended; ends the rest where one has failed."""
    deadline: float | None = None
    while any(worker.code is None for worker in workers):
        time.sleep(_BEAT_SECONDS)
        failed = [worker for worker in workers if worker.failed]
        if len(received) > 1:
            deadline = received[1].at + _HURRY_SECONDS
        elif failed and deadline is None:
            deadline = time.monotonic() + (_GRACE_SECONDS if received else _grace(failed))
        if deadline is not None and time.monotonic() >= deadline:
            for worker in workers:
                worker.end()


def _grace(failed: Sequence[_Worker]) -> float:
    """Seconds in which the others may end by themselves, so that it is known who began."""
    if any(worker.killed_by for worker in failed):
        return 0.0
    return _GRACE_SECONDS if all(worker.code in _SHARED_ENDS for worker in failed) else _ECHO_SECONDS


def _exit_code(workers: Sequence[_Worker], received: Sequence[_Signal]) -> int:
    """The exit code of the training, once all have ended. Raises RunError where a process was lost."""
    first = workers[0]
    failed = _failed_by_themselves(workers, received)
    if not failed:
        if not any(worker.code for worker in workers):
            return 0
        codes = [128 + one.number for one in received]
        return first.code if first.code in codes else codes[0]
    for worker in failed:
        if worker.killed_by:
            raise _lost(worker, f"was ended by {signal.Signals(worker.killed_by).name}")
    refused = [worker for worker in failed if worker.code == _REFUSED]
    if refused:  # the first process has said why by itself
        for line in [] if first in refused else refused[0].refusals:
            typer.echo(line, err=True)
        return _REFUSED
    causes = [(worker, cause) for worker in failed if (cause := worker.cause()) is not None]
    if causes:
        worker, cause = min(causes, key=lambda one: one[1]["at"])  # the others' errors follow from it
        typer.echo(f"{worker.name}:\n{cause['text']}", err=True)
        return BUG
    if failed[0].code in _SHARED_ENDS:
        return int(failed[0].code)
    raise _lost(failed[0], f"ended with code {failed[0].code}")


def _failed_by_themselves(workers: Sequence[_Worker], received: Sequence[_Signal]) -> list[_Worker]:
    """Those that failed otherwise than the signals ask (with their code, or by one of them).

    A signal that ended processes in the middle of a step (a second one does) has others fail of that: what they died
    of after it is left out.
    """
    asked = {code for one in received for code in (128 + one.number, -one.number)}
    failed = [worker for worker in workers if worker.failed and worker.code not in asked]
    if len(received) > 1:
        end = received[1].at
    elif received and any(worker.killed_by == received[0].number for worker in workers):
        end = received[0].at
    else:
        return failed
    return [worker for worker in failed if (cause := worker.cause()) is None or cause["at"] <= end]


def _lost(worker: _Worker, how: str) -> RunError:
    return RunError(
        f"each process of a training lives to its end, {worker.name} (rank {worker.rank}) {how} and the others were "
        "ended; what the last checkpoint holds is kept: run the same command with --resume, with a smaller "
        "per_device_train_batch_size or fewer processes where memory ran out"
    )
