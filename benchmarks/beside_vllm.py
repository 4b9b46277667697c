"""Evaluations and serving beside vLLM on the same cores: `python benchmarks/beside_vllm.py --results docs/speed.md`.

needs `.venv-vllm` (`python scripts/engines.py vllm`). The same questions are asked in turns of the model in the process of
`opengrit eval`, of vLLM's own server and of `opengrit serve`, the servers by `opengrit eval --endpoint`, with one request at
a time and with many. Both servers run all the while, with as many threads, and one of them waits while the other answers.
A server's start is not in a turn's seconds; the start of the command that asks is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import command_cost, spread
from opengrit.models.resolve import resolve
from opengrit.runs.folder import RunDir
from pages import replace_section

ROOT = Path(__file__).resolve().parents[1]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
FRAMES = {"tiny-qwen2.5-vl": "qwen2_5_vl", "tiny-internvl3": "internvl"}
SETS = ("stickers/count", "stickers/spatial")
QUIET = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip
HERE, BY_VLLM, BY_SERVE = "in the process of `opengrit eval`", "vLLM's server", "`opengrit serve`"


@dataclass
class Server:
    """A server that runs: its address up to /v1, its process group, and how long it took to answer."""

    url: str
    group: int
    start: float

    def mebibytes(self) -> float:
        """The resident memory of all its processes, shared pages counted once each process (Linux)."""
        found = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(status.parent.name)) == self.group:
                    found += sum(
                        int(kb) for kb in re.findall(r"^VmRSS:\s+(\d+)", status.read_text(), re.MULTILINE)
                    )
        return found / 1024


@dataclass
class Turns:
    """What a way took: seconds of each turn, and texts that were other than in the first turn in the process."""

    seconds: list[float] = field(default_factory=list)
    others: int = 0


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, *, log: Path, env: dict[str, str]) -> Iterator[Server]:
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            if process.poll() is not None or time.perf_counter() - began > 300:
                raise SystemExit(f"a server did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}/v1", os.getpgid(process.pid), time.perf_counter() - began)
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def evaluation(folder: Path, *words: str, limit: int) -> tuple[float, dict[str, str]]:
    """Seconds of `opengrit eval`, and the text of each question."""
    data = [word for name in SETS for word in ("--data", name)]
    common = [*data, "--limit", str(limit), "--max-new-tokens", "160", "--quiet", "--out", str(folder)]
    cost = command_cost([sys.executable, "-m", "opengrit", "eval", *words, *common], env=dict(os.environ))
    return cost.seconds, {record.id: record.completion.text for record in RunDir.open(folder).records()}


def measure(options: argparse.Namespace, folder: Path) -> str:
    model, threads = options.model, str(options.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads}
    ports = free_port(), free_port()
    vllm = [
        str(VLLM),
        "serve",
        resolve(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(ports[0]),
        "--served-model-name",
        model,
    ]
    vllm += [
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-num-batched-tokens",
        "4096",
        "--gpu-memory-utilization",
        "0.2",
    ]
    own = [sys.executable, "-m", "opengrit", "serve", model, "--port", str(ports[1]), "--no-page"]
    os.environ["OMP_NUM_THREADS"] = threads
    first: dict[str, str] = {}
    turns: dict[str, Turns] = {}
    with (
        serving(vllm, ports[0], log=folder / "vllm.log", env=env | QUIET) as by_vllm,
        serving(own, ports[1], log=folder / "serve.log", env=env) as by_serve,
    ):
        ways = {HERE: ["--model", model]}
        for concurrency in (options.requests, 1):
            for name, server in ((BY_VLLM, by_vllm), (BY_SERVE, by_serve)):
                said = (
                    f"{name}, {concurrency} requests at a time"
                    if concurrency > 1
                    else f"{name}, one request at a time"
                )
                ways[said] = [
                    "--model",
                    model,
                    "--endpoint",
                    server.url,
                    "--frame",
                    FRAMES[model],
                    "--concurrency",
                    str(concurrency),
                ]
        for turn in range(options.rounds + 1):
            for name, words in ways.items():
                limit = options.alone if "one request" in name else options.limit
                taken, texts = evaluation(
                    folder / f"{turn}-{len(turns)}-{name[:4]}-{time.time_ns()}", *words, limit=limit
                )
                first = first or texts
                if turn:  # the first warms up
                    found = turns.setdefault(name, Turns())
                    found.seconds.append(taken)
                    found.others += sum(text != first[key] for key, text in texts.items())
                print(f"{name}: {taken:.1f} s", file=sys.stderr, flush=True)
        memory = {BY_VLLM: by_vllm.mebibytes(), BY_SERVE: by_serve.mebibytes()}
    return section(options, turns, memory=memory, started={BY_VLLM: by_vllm.start, BY_SERVE: by_serve.start})


def section(
    options: argparse.Namespace,
    turns: dict[str, Turns],
    *,
    memory: dict[str, float],
    started: dict[str, float],
) -> str:
    questions = {name: 2 * (options.alone if "one request" in name else options.limit) for name in turns}
    rows = [
        f"| {name} | {questions[name]} | {', '.join(f'{s:.1f}' for s in found.seconds)} | "
        f"{questions[name] / statistics.median(found.seconds):.1f} | {found.others} of {questions[name] * len(found.seconds)} |"
        for name, found in turns.items()
    ]

    def against(one: str, other: str) -> str:
        return spread([a / b for a, b in zip(turns[one].seconds, turns[other].seconds, strict=True)])

    many = [name for name in turns if "requests at a time" in name]
    alone = [name for name in turns if "one request" in name]
    return "\n".join(
        [
            f"### Beside vLLM, {options.model}",
            "",
            f"The first questions of {' and '.join(SETS)}, greedy, at most 160 tokens, {options.threads} threads each, {options.rounds} "
            f"rounds in turns after one that warms up, whole commands; vLLM 0.30's CPU build, 32 bits, eager.",
            "",
            "| asked | questions | seconds, turn by turn | questions a second | texts that differ |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Seconds of vLLM over those of the process itself: {against(many[0], HERE)}; over those of `opengrit serve`: "
            f"{against(*many)} with many requests, {against(*alone)} with one.",
            "",
            f"Until the first answer is possible: vLLM {started[BY_VLLM]:.0f} s, `opengrit serve` {started[BY_SERVE]:.0f} s. Memory "
            f"after it all: vLLM {memory[BY_VLLM]:.0f} MiB (with 1 GiB for keys and values), `opengrit serve` {memory[BY_SERVE]:.0f} MiB.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=FRAMES, default="tiny-qwen2.5-vl")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int, default=240, help="questions of each set")
    parser.add_argument(
        "--alone", type=int, default=40, help="questions of each set that are asked one at a time"
    )
    parser.add_argument("--requests", type=int, default=16, help="at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(options, Path(folder))
    print(text)
    if options.results is not None:
        replace_section(options.results, f"beside vllm, {options.model}", text)


if __name__ == "__main__":
    main()
