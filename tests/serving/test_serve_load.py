"""Many clients at once: each gets its own picture's answer, and those that leave leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from opengrit.inference.grounder import Answer
from opengrit.serving.app import ServeSettings
from opengrit.serving.engine import Ask
from serving import MODEL, Scene, Served, grounder, scenes, served, until

CLIENTS = 64
REQUESTS = 10
DISCONNECTING = 200
TOKENS = 48

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected() -> dict[Scene, str]:
    """Pictures whose transcripts differ, each with its own: a mix-up of two cannot pass."""
    pairs = [(scene.png, scene.question) for scene in scenes(24)]
    answers = grounder().ask_many(pairs, max_new_tokens=TOKENS, quiet=True)
    said: dict[str, Scene] = {}
    for scene, answer in zip(scenes(24), answers, strict=True):
        assert isinstance(answer, Answer)
        said.setdefault(answer.text, scene)
    assert len(said) >= 16
    return {scene: text for text, scene in said.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(ServeSettings(deadline_seconds=600)) as one:
        yield one


def chat(scene: Scene, *, stream: bool) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": scene.uri}},
        {"type": "text", "text": scene.question},
    ]
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": TOKENS,
        "stream": stream,
    }


async def ask(client: httpx.AsyncClient, scene: Scene, *, stream: bool) -> str | int:
    """The text, or the seconds after which to come back."""
    response = await client.post("/v1/chat/completions", json=chat(scene, stream=stream))
    if response.status_code == 429:
        assert not response.text.startswith("data:")
        return int(response.headers["Retry-After"])
    assert response.status_code == 200, response.text
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


def client_of(server: Served) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    return httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits)


def test_every_one_of_many_clients_gets_the_answer_to_its_own_picture(server, expected):
    pictures = list(expected)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        for turn in range(REQUESTS):
            scene = pictures[(number + 7 * turn) % len(pictures)]
            assert await ask(client, scene, stream=number % 2 == 0) == expected[scene]

    async def all_of_them() -> None:
        async with client_of(server) as client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(one(client, number))

    asyncio.run(all_of_them())
    until(lambda: server.idle)


def test_more_clients_than_places_get_their_own_answer_or_an_honest_429(expected):
    pictures = list(expected)
    with served(ServeSettings(deadline_seconds=600), max_queue=4, max_batch=4) as small:

        async def all_of_them() -> list[tuple[Scene, str | int]]:
            async with client_of(small) as client:
                asked = [pictures[number % len(pictures)] for number in range(CLIENTS)]
                said = await asyncio.gather(*(ask(client, scene, stream=False) for scene in asked))
            return list(zip(asked, said, strict=True))

        outcomes = asyncio.run(all_of_them())
        until(lambda: small.idle)
    texts = [(scene, text) for scene, text in outcomes if isinstance(text, str)]
    assert len(texts) >= 8
    assert all(text == expected[scene] for scene, text in texts)
    assert all(1 <= seconds <= 60 for _, seconds in outcomes if isinstance(seconds, int))


def leave_early(server: Served, scene: Scene, *, stream: bool) -> None:
    """Ask, read the first bytes of a stream or nothing at all, and hang up."""
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(chat(scene, stream=stream)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(head.encode() + content)
        if stream:
            assert connection.recv(1)


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc, which Linux has"
)
def test_clients_that_leave_midway_leave_no_work_and_nothing_in_memory(server, expected):
    pictures = list(expected)
    held = alive(Ask)  # by the scripted engines of other tests, which keep what they were asked

    def leave(first: int, count: int) -> None:
        for number in range(first, first + count):
            leave_early(server, pictures[number % len(pictures)], stream=number % 2 == 0)

    def settle() -> tuple[int, int]:
        until(lambda: server.idle)
        return threading.active_count(), open_files()

    leave(0, 4)  # threads and files that are made once are there by now
    threads, files = settle()
    before = dropped(server)
    crowd = [threading.Thread(target=leave, args=(n, DISCONNECTING // 8)) for n in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(600)
    assert not any(thread.is_alive() for thread in crowd)
    settle()
    assert dropped(server) > before
    until(lambda: alive(Ask) <= held)
    # Pools of threads (for opening pictures, for the event loop) may have grown, to their bounds and no further.
    until(lambda: threading.active_count() <= threads + 8)
    until(lambda: open_files() <= files)
    scene = pictures[0]
    with server.client() as client:
        given = client.post("/v1/chat/completions", json=chat(scene, stream=False)).json()
    assert given["choices"][0]["message"]["content"] == expected[scene]


def dropped(server: Served) -> float:
    """How many questions were given up because nobody waited any more."""
    value = server.metrics.registry.get_sample_value(
        "opengrit_answers_total", {"model": MODEL, "end": "dropped"}
    )
    return value or 0.0
