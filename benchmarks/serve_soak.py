"""What `opengrit serve` bears: questions beside attacks, 400 questions together, and 2,000 requests of every kind.

    python benchmarks/serve_soak.py --results docs/endurance.md

starts the server with the packaged model in a process of its own, under a limit of 1,024 descriptors. All the while a health
check is sent five times a second. Memory is the server's own; its decoders' is given beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

from pages import replace_section

_TOGETHER = 8  # requests of the soak under way
_FIRST = 200  # requests after which memory is compared


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The picture's file."""
    content = io.BytesIO()
    image.save(content, kind, **options)  # type: ignore[arg-type]
    return content.getvalue()


def repeated_scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose scans are written again and again."""
    jpeg = saved(Image.new("RGB", (side, side), "red"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * times + jpeg[-2:]


@dataclass
class Health:
    """Seconds that the health checks took: five a second, from a process of its own, which nothing else keeps busy."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    @contextmanager
    def watched(self, url: str) -> Iterator[None]:
        """Check while the block runs."""
        command = [sys.executable, __file__, "--watch", url]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield
        finally:
            watcher.terminate()
            said, _ = watcher.communicate()
            for line in said.split():
                self.failed += line == "failed"
                self.seconds += [] if line == "failed" else [float(line)]

    def __str__(self) -> str:
        worst = sorted(self.seconds)
        return f"{len(worst)} checks, {self.failed} failed, half within {worst[len(worst) // 2]:.3f} s, the slowest {worst[-1]:.2f} s"


def watch(url: str) -> None:
    """Print the seconds of health checks, each over a connection of its own, until ended."""
    while True:
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=60) as given:
                line = f"{time.perf_counter() - began:.4f}" if given.status == 200 else "failed"
        except OSError:
            line = "failed"
        print(line, flush=True)
        time.sleep(0.2)


class Kinds:
    """The requests of the soak, by name and share."""

    def __init__(self, url: str) -> None:
        self.url = url
        noise = Image.effect_noise((6000, 6000), 30).convert("RGB")
        self.pictures = {
            "small": saved(noise.crop((0, 0, 200, 150)), "PNG"),
            "4 megapixels": saved(noise.crop((0, 0, 2000, 2000)), "JPEG"),
            "36 megapixels": saved(noise, "JPEG"),
            "scans": repeated_scans(7000, 300),
            "cut short": saved(noise.crop((0, 0, 2000, 2000)), "PNG")[:100_000],
        }
        self.bombs = (b"[" * 2**21, b"[" + b"[]," * 500_000 + b"1]", b'{"a":"' + b"\\n" * 2**20 + b'"}')
        self.shares: dict[str, tuple[int, Callable[[httpx.AsyncClient], Awaitable[str]]]] = {
            "question": (40, self.question("small")),
            "streamed chat": (20, self.streamed),
            "question, 4 megapixels": (6, self.question("4 megapixels")),
            "question, 36 megapixels": (1, self.question("36 megapixels")),
            "JPEG of 300 more scans": (3, self.question("scans")),
            "PNG cut short": (4, self.question("cut short")),
            "JSON that grows": (6, self.bomb),
            "half a request": (8, self.half),
            "question on the page": (6, self.page),
            "call of Gradio's queue": (6, self.queue),
        }

    def draw(self, source: random.Random) -> str:
        """The name of a kind, as often as its share says."""
        return source.choices(list(self.shares), [share for share, _ in self.shares.values()])[0]

    def question(self, picture: str) -> Callable[[httpx.AsyncClient], Awaitable[str]]:
        async def ask(client: httpx.AsyncClient) -> str:
            data = {"question": "What is it?", "max_new_tokens": "8"}
            given = await client.post("/v1/ground", files={"image": self.pictures[picture]}, data=data)
            return str(given.status_code)

        return ask

    async def streamed(self, client: httpx.AsyncClient) -> str:
        uri = "data:image/png;base64," + base64.b64encode(self.pictures["small"]).decode()
        parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": uri}}]
        body = {"model": "tiny-qwen2.5-vl", "messages": [{"role": "user", "content": parts}]}
        given = await client.post("/v1/chat/completions", json=body | {"stream": True, "max_tokens": 8})
        return str(given.status_code) if given.status_code != 200 or "[DONE]" in given.text else "interrupted"

    async def bomb(self, client: httpx.AsyncClient) -> str:
        headers = {"Content-Type": "application/json"}
        given = await client.post("/v1/ground", content=random.choice(self.bombs), headers=headers)
        return str(given.status_code)

    async def half(self, client: httpx.AsyncClient) -> str:
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        asyncio.get_running_loop().call_later(5, connection.close)
        return "left alone"

    async def page(self, client: httpx.AsyncClient) -> str:
        brought = await client.post("/page/pictures", content=self.pictures["small"])
        asked = {
            "picture": brought.json()["name"],
            "question": "What?",
            "models": [],
            "id": os.urandom(8).hex(),
        }
        return str((await client.post("/page/questions", json=asked)).status_code)

    async def queue(self, client: httpx.AsyncClient) -> str:
        event = {"data": ["x" * 10_000], "fn_index": 0, "session_hash": os.urandom(8).hex()}
        return str((await client.post("/gradio_api/queue/join", json=event)).status_code)


def mebibytes(pid: int) -> float:
    """The memory a process has, from /proc (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return sorted(found)


async def at_once(url: str, count: int, picture: bytes) -> tuple[Counter[str], list[float]]:
    """So many questions together: how each ended, and the seconds of those that were answered."""
    limits = httpx.Limits(max_connections=count)
    ends: Counter[str] = Counter()
    seconds: list[float] = []

    async def one(client: httpx.AsyncClient) -> None:
        began = time.perf_counter()
        try:
            data = {"question": "What is it?", "max_new_tokens": "8"}
            given = await client.post("/v1/ground", files={"image": picture}, data=data)
        except httpx.HTTPError as error:
            ends[type(error).__name__] += 1
            return
        ends[str(given.status_code)] += 1
        if given.status_code == 200:
            seconds.append(time.perf_counter() - began)

    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(count)))
    return ends, sorted(seconds)


async def soak(
    url: str, pid: int, kinds: Kinds, requests: int, seed: int
) -> tuple[dict[str, Counter[str]], list[float]]:
    """The requests, a few at a time: how each kind ended, and memory after the first ones, in between and at the end."""
    source, ends, memory = (
        random.Random(seed),
        {name: Counter[str]() for name in kinds.shares},
        [mebibytes(pid)],
    )
    names = [kinds.draw(source) for _ in range(requests)]
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        for start in range(0, requests, _FIRST):
            waiting = iter(names[start : start + _FIRST])

            async def work(waiting=waiting) -> None:
                for name in waiting:
                    try:
                        ends[name][await kinds.shares[name][1](client)] += 1
                    except (httpx.HTTPError, OSError) as error:
                        ends[name][type(error).__name__] += 1

            await asyncio.gather(*(work() for _ in range(_TOGETHER)))
            memory.append(mebibytes(pid))
            print(f"{start + _FIRST} requests, {memory[-1]:.0f} MiB", file=sys.stderr, flush=True)
    return ends, memory


async def beside_attacks(url: str, kinds: Kinds, questions: int = 10) -> dict[str, list[float]]:
    """The seconds of questions asked one after the other, alone and beside each attack, sorted; a 503 is asked again."""

    async def asked(client: httpx.AsyncClient) -> float:
        began = time.perf_counter()
        while (end := await kinds.question("small")(client)) == "503":
            await asyncio.sleep(0.1)
        assert end == "200", end
        return time.perf_counter() - began

    async def again(attack: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            while True:
                await kinds.shares[attack][1](client)

    async def half_heads() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            for _ in range(300):
                await kinds.half(client)
            await asyncio.sleep(3600)

    attacks: dict[str, Callable[[], list[Awaitable[None]]]] = {
        "alone": lambda: [],
        "beside 300 half requests": lambda: [half_heads()],
        "beside two clients that send JSON that grows": lambda: [
            again("JSON that grows"),
            again("JSON that grows"),
        ],
        "beside two clients that send the JPEG of 300 more scans": lambda: [
            again("JPEG of 300 more scans"),
            again("JPEG of 300 more scans"),
        ],
    }
    found = {}
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        for name, start in attacks.items():
            running = [asyncio.ensure_future(attack) for attack in start()]
            await asyncio.sleep(1.0 if running else 0.0)
            found[name] = sorted([await asked(client) for _ in range(questions)])
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    return found


async def measure(url: str, pid: int, options: argparse.Namespace) -> str:
    """The section's text."""
    kinds, crowd_health, soak_health = Kinds(url), Health(), Health()
    await kinds.question("small")(httpx.AsyncClient(base_url=url, timeout=600))
    attacked_health = Health()
    with attacked_health.watched(url):
        honest = await beside_attacks(url, kinds)
    with crowd_health.watched(url):
        ends, seconds = await at_once(url, options.at_once, kinds.pictures["small"])
    with soak_health.watched(url):
        began = time.perf_counter()
        by_kind, memory = await soak(url, pid, kinds, options.requests, options.seed)
        took = time.perf_counter() - began
    shown = {name: ", ".join(f"{end}: {n}" for end, n in sorted(c.items())) for name, c in by_kind.items()}
    counts = ", ".join(f"{n} x {end}" for end, n in sorted(ends.items()))
    decoders = ", ".join(f"{mebibytes(child):.0f}" for child in children(pid)) or "none"
    return "\n".join(
        [
            f"`python benchmarks/serve_soak.py --requests {options.requests} --at-once {options.at_once} --seed {options.seed}`, "
            f"tiny-qwen2.5-vl with the page, {os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()}; the "
            f"clients and other work beside it, load average {os.getloadavg()[0]:.1f}), 1,024 descriptors.",
            "",
            "**An honest question**, ten in a row, half and slowest: "
            + "; ".join(
                f"{name} {given[len(given) // 2]:.2f} and {given[-1]:.2f} s" for name, given in honest.items()
            )
            + f". Health: {attacked_health}.",
            "",
            f"**{options.at_once} questions at once** (64 may wait, 32 are answered together): {counts}; those answered took "
            f"{seconds[len(seconds) // 2]:.1f} s (half) to {seconds[-1]:.1f} s. Health: {crowd_health}.",
            "",
            f"**{options.requests} requests of every kind**, {_TOGETHER} at a time, in {took:.0f} s. Health: {soak_health}. Memory "
            f"of the server in MiB before and after each {_FIRST}: {', '.join(f'{m:.0f}' for m in memory)}; from the first "
            f"{_FIRST} to the end {100 * (memory[-1] / memory[1] - 1):+.1f} %. Decoders at the end: {decoders} MiB.",
            "",
            "| kind | responses |",
            "|---|---|",
            *(f"| {name} | {text} |" for name, text in shown.items()),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grace", type=float, default=3.0)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch(options.watch)

    def few_descriptors() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    command = [sys.executable, "-m", "opengrit", "serve", "--port", "0", "--grace", str(options.grace)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=few_descriptors)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        text = asyncio.run(measure(found[0], server.pid, options))
        left = children(server.pid)
        began = time.perf_counter()
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        stopped = time.perf_counter() - began
    finally:
        server.kill()
        server.wait()
    alive = [
        pid
        for pid in left
        if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    text += (
        f"\nSIGTERM behind it: the process ended after {stopped:.1f} s (grace {options.grace:g} s) with code {code}, "
        f"{len(alive)} of its processes left.\n"
    )
    print(text)
    if options.results is not None:
        replace_section(options.results, "serving", text)


if __name__ == "__main__":
    main()
