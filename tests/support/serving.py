"""A real server for tests: the packaged model behind uvicorn, on a port the system chooses, in a thread."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import httpx
from fastapi import FastAPI
from PIL import Image

from opengrit.data.stickers.sets import asked, png_bytes
from opengrit.data.stickers.world import draw
from opengrit.inference.grounder import Grounder
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.engine import Engine
from opengrit.serving.local import LocalEngine
from opengrit.serving.metrics import Metrics
from opengrit.serving.run import address, bind, server

MODEL = "tiny-qwen2.5-vl"
PATIENCE = 120.0  # seconds; a loaded machine is slow, a hang is for ever


@cache
def grounder() -> Grounder:
    """The packaged model, loaded once."""
    return Grounder.load(MODEL)


@dataclass(frozen=True, slots=True)
class Scene:
    """A sticker picture, as PNG bytes, and a question about it."""

    png: bytes
    question: str

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png))


@cache
def scenes(count: int = 8) -> list[Scene]:
    """The first questions of the development set."""
    return [Scene(png_bytes(draw(q.scene)), q.question) for q in asked("dev")[:count]]


@dataclass(frozen=True, slots=True)
class Served:
    """A running server: its address, its counts and its engines."""

    url: str
    metrics: Metrics
    engines: Mapping[str, Engine]

    def client(self, **kwargs: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **kwargs)  # type: ignore[arg-type]

    @property
    def idle(self) -> bool:
        """No question waits or is being answered, and no request is under way."""
        return not self.metrics.busy() and not self.metrics.in_flight


@contextmanager
def running(app: FastAPI, engines: Mapping[str, Engine]) -> Iterator[Served]:
    """The application behind uvicorn in a thread, until the block is left."""
    listening = bind("127.0.0.1", 0)
    ready = threading.Event()
    serving = server(app, grace_seconds=PATIENCE, ready=ready.set)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]}, name="uvicorn")
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield Served(address(listening), app.state.metrics, engines)
    finally:
        serving.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        assert not thread.is_alive()


@contextmanager
def served(
    settings: ServeSettings | None = None, *, page: bool = False, max_queue: int = 64, max_batch: int = 32
) -> Iterator[Served]:
    """The packaged model, served."""
    engine = LocalEngine(grounder(), max_queue=max_queue, max_batch=max_batch)
    engines: dict[str, Engine] = {engine.name: engine}
    with running(build_app(engines, settings or ServeSettings(), page=page), engines) as running_server:
        yield running_server


def until(condition: object, *, seconds: float = PATIENCE) -> None:
    """Wait for a condition (a function without arguments) to hold; fails where it does not in time."""
    assert callable(condition)
    waiting, ends = threading.Event(), time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            break
        waiting.wait(0.02)
    else:
        return
    raise AssertionError(f"the condition does not hold after {seconds} s")
