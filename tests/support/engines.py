"""The real engines that `make test-engines` sets up: where they lie, vLLM's own server, and commands beside them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
OVERLAYS = ROOT / ".engines"
PACKAGED = ROOT / "src" / "opengrit" / "models" / "packaged"
EAGER = ROOT / "tests" / "engines" / "eager.py"

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its threads go where a core is free
}


def missing(name: str) -> str | None:
    """Why an engine cannot be tested, or None where it is set up; the reason is what pytest shows for a skip."""
    folder = VLLM_PYTHON.parents[1] if name == "vllm" else OVERLAYS / name
    if (folder / ".ready").is_file():
        return None
    reason = OVERLAYS / f"{name}.reason"
    why = reason.read_text() if reason.is_file() else f"run python scripts/engines.py {name}"
    return f"{name} is not set up: {why}"


def tests_engines() -> bool:
    """Whether this is a run of `make test-engines`."""
    return bool(os.environ.get("OPENGRIT_TEST_ENGINES"))


def seconds_left() -> float:
    """Until when the clock of `make test-engines` runs, whose end it hands over in seconds since 1970; 0 is over."""
    ends = float(os.environ.get("OPENGRIT_TEST_ENGINES") or 0)
    return max(0.0, ends - time.time()) if ends > 1 else float("inf")


def clock_has_run_out() -> str | None:
    """Why no test begins any more, or None while there is time."""
    if seconds_left() > 0:
        return None
    return "no time is left on the clock of `make test-engines`; ENGINE_MINUTES=60 gives more"


def version(name: str) -> str:
    """The version of an engine that is set up, from its own metadata; empty where there is none."""
    site = VLLM_PYTHON.parents[1].glob("lib/python3*/site-packages") if name == "vllm" else [OVERLAYS / name]
    for folder in site:
        for info in folder.glob(f"{name}-*.dist-info"):
            return info.name.removesuffix(".dist-info").partition("-")[2]
    return ""


def environment(*overlays: str, **more: str) -> dict[str, str]:
    """The environment of a command that finds the overlays' packages first, and the source tree's `opengrit`."""
    paths = [*(str(OVERLAYS / name) for name in overlays), str(ROOT / "src")]
    built = {"TORCH_EXTENSIONS_DIR": str(OVERLAYS / "deepspeed" / "torch_extensions")}
    return os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(paths)} | built | more


def opengrit(*arguments: object, python: Path | str = sys.executable, overlays: tuple[str, ...] = ()) -> str:
    """What a command prints; AssertionError with everything it said where it fails."""
    return run([str(python), "-m", "opengrit", *map(str, arguments)], environment(*overlays))


def colocated(*arguments: object, **more: str) -> str:
    """`opengrit ARGUMENTS` in vLLM's environment, with a vLLM that compiles nothing."""
    return run([str(VLLM_PYTHON), str(EAGER), *map(str, arguments)], environment(**more))


def run(
    command: list[str], env: dict[str, str], timeout: float = 900.0, *, folder: Path | None = None
) -> str:
    """A command's whole output, begun in `folder`; AssertionError where it fails or takes longer than `timeout` seconds.

    A command that the clock of `make test-engines` ends leaves its test skipped, not failed: it says nothing of the engine.
    """
    left = seconds_left()
    process = subprocess.Popen(
        command,
        env=env,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=min(timeout, max(left, 1.0)))
    except subprocess.TimeoutExpired as error:
        os.killpg(
            process.pid, signal.SIGKILL
        )  # with the engine that it has started, which holds the same pipe
        said, _ = process.communicate()
        if left < timeout:
            pytest.skip(f"the clock of `make test-engines` ended {' '.join(command[-6:])}")
        raise AssertionError(f"{command} did not end in {timeout:g} s: {said[-4000:]}") from error
    assert process.returncode == 0, f"{' '.join(command)} exited with {process.returncode}:\n{said[-6000:]}"
    return said


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(command: list[str], *, url: str, log: Path, env: dict[str, str]) -> Iterator[None]:
    """A server that answers at `url`, ended afterwards with everything it has started."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(server, url, log)
            yield
        finally:
            os.killpg(server.pid, 15)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)
                server.wait()


def _wait(server: subprocess.Popen, url: str, log: Path, patience: float = 300.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        assert server.poll() is None, f"{url} ended with {server.returncode}:\n{log.read_text()[-6000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer in {patience:g} s:\n{log.read_text()[-6000:]}")


@contextmanager
def vllm_server(model: str, folder: Path, *, weights: Path | None = None) -> Iterator[str]:
    """vLLM's own server with a packaged model (or another folder's weights under its name), in 32 bits; the address up to /v1."""
    port = free_port()
    command = [
        str(VLLM_PYTHON.parent / "vllm"),
        "serve",
        str(weights or PACKAGED / model),
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(port), "--served-model-name", model, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-num-batched-tokens", "4096", "--gpu-memory-utilization", "0.2"]
    with serving(
        command,
        url=f"http://127.0.0.1:{port}/health",
        log=folder / f"{model}.log",
        env=os.environ | QUIET,
    ):
        yield f"http://127.0.0.1:{port}/v1"
