"""Servers to measure: `opengrit serve`, and vLLM's own on a CPU."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
        """The memory that it and the processes it has started hold, each with what it shares (Linux)."""
        return sum(map(_resident_mebibytes, _with_children(self.pid)))


@contextmanager
def own_server(
    model: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Server]:
    """`opengrit serve` on a free port, without its page. Raises SystemExit where it does not start."""
    command = [sys.executable, "-m", "opengrit", "serve", model, "--port", "0", "--no-page"]
    began = time.perf_counter()
    with _process(command, env=env, cwd=cwd, log=None) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
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
    with _process(command, env={**env, **_QUIET}, cwd=None, log=log) as process:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise SystemExit(f"vLLM's server did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - began)


@contextmanager
def _process(
    command: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, log: Path | None
) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which is ended with it; its output in a pipe, or all it says in a file."""
    with contextlib.ExitStack() as stack:
        out = subprocess.PIPE if log is None else stack.enter_context(log.open("wb"))
        err = subprocess.DEVNULL if log is None else out
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdout=out, stderr=err, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += _with_children(int(child))
    return found


def _resident_mebibytes(pid: int) -> float:
    """The memory a process has, from /proc (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return 0.0 if found is None else int(found[1]) / 1024
