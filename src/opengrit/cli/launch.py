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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from opengrit.core.errors import RecipeError, RunError
from opengrit.evaluation.processes import Place

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
    """Run `command` in `count` processes that know of each other as torch's do; their exit code, when all have ended.

    The first has the terminal; what the others say is passed on with their name. SIGINT and SIGTERM go to all of them.
    Where one is lost the others are ended at once, and RunError names it.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        crew = [_start(command, Place(n, count), port=port, folder=Path(folder)) for n in range(count)]
        try:
            with _signals_go_to(crew) as came:
                _watch(crew, came)
        finally:
            for member in crew:
                member.end()
        return _verdict(crew, came)


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


@dataclass(frozen=True, slots=True)
class _Signal:
    number: int
    at: float  # time.monotonic()
    clock: float  # time.time(), which a process's report has


@dataclass(slots=True, eq=False)
class _Member:
    """One of the processes."""

    place: Place
    process: subprocess.Popen[bytes]
    report: Path
    refusals: list[str] = field(default_factory=list)  # its error lines, which are every process's mostly
    begun: bytes = b""  # a line that has not ended
    was_ended: bool = False  # by us

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self.process.poll()

    @property
    def failed(self) -> bool:
        return self.code not in (None, 0) and not self.was_ended

    @property
    def death(self) -> dict[str, Any] | None:
        """What it died of (`at`, seconds of the clock, and `text`), where it could say so."""
        return json.loads(self.report.read_text()) if self.report.is_file() else None

    def end(self) -> None:
        """Ends it now. What it has written is whole: checkpoints are renamed into place, lines are appended whole."""
        if self.code is None:
            self.was_ended = True
            self.process.kill()
            self.process.wait()

    def hear(self, heard: bytes) -> None:
        """Passes on what it said, line by line; nothing heard means that it will say no more."""
        *lines, self.begun = (self.begun + heard).split(b"\n") if heard else (self.begun, b"")
        for line in lines:
            said = line.decode("utf-8", "replace").rstrip()
            if said.startswith("error: "):
                self.refusals.append(said)
            elif said:
                typer.echo(f"{self.place}: {said}", err=True)


def _start(command: Sequence[str], place: Place, *, port: int, folder: Path) -> _Member:
    report = folder / str(place.number)
    facts = {
        "RANK": place.number,
        "LOCAL_RANK": place.number,
        "WORLD_SIZE": place.count,
        "LOCAL_WORLD_SIZE": place.count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        REPORT: report,
    }
    leads = place.number == 0
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # closes when this process ends, however it does
        stdout=None if leads else subprocess.PIPE,
        stderr=None if leads else subprocess.STDOUT,
        start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on once
        env={
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // place.count)),
            **os.environ,
            **{name: str(value) for name, value in facts.items()},
        },
    )
    return _Member(place, process, report)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _signals_go_to(crew: Sequence[_Member]) -> Iterator[list[_Signal]]:
    """Passes SIGINT and SIGTERM on to the crew, and yields the list of those that come; an ignored one stays ignored."""
    came: list[_Signal] = []

    def pass_on(number: int, _: Any) -> None:
        came.append(_Signal(number, time.monotonic(), time.time()))
        for member in crew:
            if member.code is None:
                member.process.send_signal(number)

    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(crew: Sequence[_Member], came: Sequence[_Signal]) -> None:
    """Until all have ended: passes on what they say, and ends the rest where one has failed."""
    deadline: float | None = None
    with selectors.DefaultSelector() as voices:
        for member in crew:
            if member.process.stdout is not None:
                voices.register(member.process.stdout, selectors.EVENT_READ, member)
        while any(member.code is None for member in crew):
            _listen(voices, seconds=_BEAT_SECONDS)
            failed = [member for member in crew if member.failed]
            if len(came) > 1:
                deadline = came[1].at + _HURRY_SECONDS
            elif failed and deadline is None:
                deadline = time.monotonic() + (_GRACE_SECONDS if came else _grace(failed))
            if deadline is not None and time.monotonic() >= deadline:
                for member in crew:
                    member.end()
        while _listen(voices, seconds=0.0):
            pass


def _grace(failed: Sequence[_Member]) -> float:
    """Seconds in which the others may end by themselves, so that it is known who began."""
    if any((member.code or 0) < 0 for member in failed):
        return 0.0
    return _GRACE_SECONDS if all(member.code in _SHARED_ENDS for member in failed) else _ECHO_SECONDS


def _listen(voices: selectors.BaseSelector, *, seconds: float) -> int:
    """Passes on whole lines that have come within that time; how many voices had something to say, or ended."""
    if not voices.get_map():
        time.sleep(seconds)
        return 0
    ready = voices.select(seconds)
    for key, _ in ready:
        heard = os.read(key.fd, 65536)
        key.data.hear(heard)
        if not heard:
            voices.unregister(key.fileobj)
    return len(ready)


def _verdict(crew: Sequence[_Member], came: Sequence[_Signal]) -> int:
    """The exit code of the training, once all have ended. Raises RunError where a process was lost."""
    lead = crew[0]
    failed = _failed_by_themselves(crew, came)
    if not failed:
        if not any(member.code for member in crew):
            return 0
        codes = [128 + one.number for one in came]
        return lead.code if lead.code in codes else codes[0]
    killed = [member for member in failed if (member.code or 0) < 0]
    if killed:
        raise _lost(killed[0].place, f"was ended by {signal.Signals(-(killed[0].code or 0)).name}")
    refused = [member for member in failed if member.code == _REFUSED]
    if refused:  # the first process has said why by itself
        for line in [] if lead in refused else refused[0].refusals:
            typer.echo(line, err=True)
        return _REFUSED
    reports = [(member.place, report) for member in failed if (report := member.death) is not None]
    if reports:
        place, first = min(reports, key=lambda found: found[1]["at"])  # the others' errors follow from it
        typer.echo(f"{place}:\n{first['text']}", err=True)
        return BUG
    if failed[0].code in _SHARED_ENDS:
        return int(failed[0].code)
    raise _lost(failed[0].place, f"ended with code {failed[0].code}")


def _failed_by_themselves(crew: Sequence[_Member], came: Sequence[_Signal]) -> list[_Member]:
    """Those that failed otherwise than the signals ask (with their code, or by one of them).

    A signal that ended processes where they stood (a second one does) has others fail of that: what they died of after it
    is left out.
    """
    asked = {code for one in came for code in (128 + one.number, -one.number)}
    failed = [member for member in crew if member.failed and member.code not in asked]
    if len(came) > 1:
        end = came[1].clock
    elif came and any(member.code == -came[0].number for member in crew):
        end = came[0].clock
    else:
        return failed
    return [member for member in failed if (report := member.death) is None or report["at"] <= end]


def _lost(place: Place, how: str) -> RunError:
    return RunError(
        f"each process of a training lives to its end, {place} (rank {place.number}) {how} and the others were ended; "
        "what the last checkpoint holds is kept: run the same command with --resume to go on, with a smaller "
        "per_device_train_batch_size or fewer processes where memory ran out"
    )
