"""A real server for tests: the packaged model behind uvicorn, on a port the system chooses, in a thread."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import httpx
from fastapi import FastAPI
from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.types import Completion, Finish
from opengrit.data.stickers.sets import asked, png_bytes
from opengrit.data.stickers.world import draw
from opengrit.inference.answer import Answer, read_answer
from opengrit.inference.grounder import Grounder
from opengrit.sampling import Sampled
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.connections import ConnectionLimits
from opengrit.serving.engine import Ask, Engine, Load
from opengrit.serving.local import LocalEngine
from opengrit.serving.metrics import Metrics
from opengrit.serving.run import address, bind, server

MODEL = "tiny-qwen2.5-vl"
PATIENCE = 120.0  # seconds; a loaded machine is slow, a hang never ends


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


class Speaking:
    """An engine that says one text, whatever is asked."""

    name = "speaking"
    frame = "unit"

    def __init__(self, text: str) -> None:
        self.text = text

    def seen_size(self, picture_size: Size) -> Size | None:
        return picture_size

    def load(self) -> Load:
        return Load(0, 0)

    async def start(self) -> None:
        pass

    async def close(self, grace_seconds: float = 0.0) -> None:
        pass

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        size = Size(*ask.image.size)
        yield self.text
        sampled = Sampled(Completion(self.text, (1,), Finish.EOS), (1,), size)
        yield read_answer(
            sampled,
            question=ask.question,
            picture_size=size,
            strategy=ask.strategy,
            frame_name=self.frame,
            seconds=0.0,
            model=self.name,
        )


@contextmanager
def running(
    app: FastAPI, engines: Mapping[str, Engine], limits: ConnectionLimits | None = None
) -> Iterator[Served]:
    """The application behind uvicorn in a thread, until the block is left."""
    listening = bind("127.0.0.1", 0)
    ready = threading.Event()
    serving = server(app, grace_seconds=PATIENCE, limits=limits, ready=ready.set)
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
