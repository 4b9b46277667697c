"""Servers to measure: `opengrit serve`, and vLLM's own on a CPU."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrit.models.resolve import resolve

VLLM = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "vllm"
START_SECONDS = 300.0
_QUIET = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers: its address, its process, and the seconds until it answered."""

    url: str
    pid: int
    started: float

    def mebibytes(self) -> float:
        """The memory that it and the processes it has started hold, what they share counted once (Linux)."""
        return sum(map(_mebibytes, _with_children(self.pid)))


@contextmanager
def own_server(
    model: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Server]:
    """`opengrit serve` on a free port, without its page. Raises SystemExit with what it said where it does not start."""
    command = [sys.executable, "-m", "opengrit", "serve", model, "--port", "0", "--no-page"]
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        _process(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            said.seek(0)
            raise SystemExit(f"the server did not start:\n{said.read()[-3000:]}")
        yield Server(found[0], process.pid, time.perf_counter() - began)


@contextmanager
def vllm_server(model: str, *, env: Mapping[str, str], log: Path) -> Iterator[Server]:
    """vLLM's server with the model's weights in 32 bits, as `model`. Raises SystemExit with its log where it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(VLLM), "serve", resolve(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", model,
        "--dtype", "float32", "--enforce-eager", "--max-num-batched-tokens", "4096", "--gpu-memory-utilization", "0.2",
    ]  # fmt: skip
    began = time.perf_counter()
    with (
        log.open("wb") as out,
        _process(command, env={**env, **_QUIET}, cwd=None, stdout=out, stderr=out) as process,
    ):
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise SystemExit(f"vLLM's server did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - began)


@contextmanager
def _process(
    command: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, stdout: Any, stderr: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a group of its own and end the whole group at the end, also where a signal ends this process."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdout=stdout, stderr=stderr, text=True, start_new_session=True
    )
    try:
        with process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        signal.signal(signal.SIGTERM, before)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for child in tasks.read_text().split():
                found += _with_children(int(child))
    return found


def _mebibytes(pid: int) -> float:
    """A process's memory, of what it shares with others its share."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) / 1024
    return 0.0
