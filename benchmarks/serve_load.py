"""What `opengrit serve` bears: many clients against one at a time, and clients that leave midway.

    python benchmarks/serve_load.py --results docs/results/cost.md

starts the server with the packaged model in a process of its own and asks it over HTTP, whole runs of one client and of
many taking turns. Clients and server share the machine's cores. Every answer is compared with that of `Grounder.ask`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import platform
import re
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from opengrit.data.stickers.sets import asked, png_bytes
from opengrit.data.stickers.world import draw
from opengrit.inference.grounder import Grounder
from pages import replace_section
from servers import Server, own_server


@dataclass(frozen=True)
class Scene:
    """A picture, a question about it, and what the model says to it."""

    body: dict[str, object]
    expected: str


@dataclass
class Run:
    """What came of some clients' requests: seconds of each that was answered, and how many were not."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    busy: int = 0  # 429 with Retry-After
    wrong: int = 0  # another answer than the picture's own
    failed: int = 0  # anything else

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def scenes(grounder: Grounder, count: int) -> list[Scene]:
    """Pictures whose transcripts differ, with the answer to each."""
    found: dict[str, Scene] = {}
    for question in asked("dev"):
        png = png_bytes(draw(question.scene))
        text = grounder.ask(png, question.question).text
        image = base64.b64encode(png).decode()
        found.setdefault(text, Scene({"image": image, "question": question.question}, text))
        if len(found) == count:
            break
    return list(found.values())


async def run(url: str, pictures: list[Scene], *, clients: int, requests: int) -> Run:
    """Each client asks its requests one after the other."""
    result = Run()

    async def one(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(requests):
            scene = pictures[(number * 7 + turn) % len(pictures)]
            while True:
                began = time.perf_counter()
                response = await client.post("/v1/ground", json=scene.body)
                if response.status_code != 429:
                    break
                result.busy += 1
                await asyncio.sleep(int(response.headers["Retry-After"]))
            if response.status_code != 200:
                result.failed += 1
                continue
            result.latencies.append(time.perf_counter() - began)
            result.wrong += response.json()["transcript"] != scene.expected

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client, number) for number in range(clients)))
        result.seconds = time.perf_counter() - began
    return result


def leave_early(url: str, scene: Scene) -> None:
    """Ask and hang up without reading."""
    request = httpx.Request("POST", f"{url}/v1/ground", json=scene.body)
    head = f"POST /v1/ground HTTP/1.1\r\nHost: {request.url.netloc.decode()}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(request.content)}\r\n\r\n"
    with socket.create_connection((request.url.host, request.url.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + request.content)


def until_idle(url: str) -> None:
    """Wait until nothing waits and nothing is being answered."""
    for _ in range(6000):
        text = httpx.get(f"{url}/metrics", timeout=60).text
        if not sum(
            float(n) for n in re.findall(r"^opengrit_(?:live|queued)\{.*\} (\S+)$", text, re.MULTILINE)
        ):
            return
        time.sleep(0.05)
    raise SystemExit("the server is still busy after five minutes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10, help="of each client")
    parser.add_argument("--alone", type=int, default=60, help="requests of the one client, in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--leaving", type=int, default=200, help="clients that hang up, in each round")
    parser.add_argument("--leaving-rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()

    pictures = scenes(Grounder.load(options.model), 24)
    with own_server(options.model) as server:
        text = measure(server, pictures, options)
    print(text)
    if options.results is not None:
        replace_section(options.results, f"serving {options.model}", text)


def measure(server: Server, pictures: list[Scene], options: argparse.Namespace) -> str:
    """The section's text."""
    url = server.url
    asyncio.run(run(url, pictures, clients=8, requests=3))  # warms up
    alone: list[Run] = []
    many: list[Run] = []
    memory = [server.mebibytes()]
    for _ in range(options.rounds):
        alone.append(asyncio.run(run(url, pictures, clients=1, requests=options.alone)))
        print(row("1", alone[-1:]), file=sys.stderr)
        many.append(asyncio.run(run(url, pictures, clients=options.clients, requests=options.requests)))
        print(row(str(options.clients), many[-1:]), file=sys.stderr)
    memory.append(server.mebibytes())
    for _ in range(options.leaving_rounds):
        for number in range(options.leaving):
            leave_early(url, pictures[number % len(pictures)])
        until_idle(url)
        memory.append(server.mebibytes())
    ratio = statistics.fmean(r.per_second for r in many) / statistics.fmean(r.per_second for r in alone)
    rows = [
        "| clients | answers a second, round by round | p50 (s) | p95 (s) | answered | 429 | wrong picture's | failed |",
        "|---|---|---|---|---|---|---|---|",
        row("1", alone),
        row(str(options.clients), many),
    ]
    shown = ", ".join(f"{m:.0f}" for m in memory[1:])
    return "\n".join(
        [
            f"### Serving {options.model} on {os.cpu_count()} cores",
            "",
            f"{options.clients} clients x {options.requests} requests against one client x {options.alone}, "
            f"{options.rounds} rounds in turns, greedy, {len(pictures)} pictures whose transcripts differ. "
            f"{platform.machine()}, Python {platform.python_version()}; clients and server share the cores. Load average "
            f"at the end: {os.getloadavg()[0]:.1f}.",
            "",
            *rows,
            "",
            f"Ratio of the means: {ratio:.2f}.",
            "",
            f"Memory of the server: {memory[0]:.0f} MiB after warming up; {shown} MiB after these rounds and after each of "
            f"{options.leaving_rounds} times {options.leaving} clients that hung up without reading.",
            "",
        ]
    )


def row(name: str, runs: list[Run]) -> str:
    together = Run(latencies=[s for r in runs for s in r.latencies])
    return (
        f"| {name} | {', '.join(f'{r.per_second:.1f}' for r in runs)} | {together.percentile(0.5):.2f} | "
        f"{together.percentile(0.95):.2f} | {len(together.latencies)} | {sum(r.busy for r in runs)} | "
        f"{sum(r.wrong for r in runs)} | {sum(r.failed for r in runs)} |"
    )


if __name__ == "__main__":
    main()
