"""Metrics for Prometheus at /metrics: requests, waiting and running questions, tokens, seconds."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opengrit.core.boxes import Size
from opengrit.inference.answer import Answer
from opengrit.serving.engine import Ask, Engine, Load, NoAnswer

ROUTES = ("/v1/ground", "/v1/chat/completions", "/v1/models", "/healthz", "/metrics", "/openapi.json")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The server's metrics. Routes of the API count by name, all others as "page"."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "opengrit_requests",
            "Requests by route and HTTP status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "opengrit_request_seconds",
            "Seconds from a request to the end of its response.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            "opengrit_answers",
            "Questions by model and how they ended.",
            ("model", "end"),
            registry=self.registry,
        )
        self.tokens = Counter(
            "opengrit_tokens", "Tokens read and written by model.", ("model", "kind"), registry=self.registry
        )
        self.queued = Gauge("opengrit_queued", "Questions that wait.", ("model",), registry=self.registry)
        self.live = Gauge("opengrit_live", "Questions being answered.", ("model",), registry=self.registry)
        self.stopping_since: float | None = None  # in time.monotonic's seconds
        self.in_flight = 0  # requests to the API whose response is not over
        self._engines: list[Engine] = []

    def measured(self, engine: Engine) -> MeasuredEngine:
        """The engine, with its questions and tokens counted."""
        self.queued.labels(engine.name).set_function(lambda: engine.load().queued)
        self.live.labels(engine.name).set_function(lambda: engine.load().live)
        self._engines.append(engine)
        return MeasuredEngine(engine, self)

    def busy(self) -> bool:
        """Whether an engine has questions that wait or are being answered."""
        return any(load.queued or load.live for load in (engine.load() for engine in self._engines))

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self.registry)


class MeasuredEngine:
    """An engine whose questions and tokens are counted."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.name = engine.name
        self.frame = engine.frame
        self._engine = engine
        self._metrics = metrics

    def seen_size(self, picture_size: Size) -> Size | None:
        return self._engine.seen_size(picture_size)

    def load(self) -> Load:
        return self._engine.load()

    async def start(self) -> None:
        await self._engine.start()

    async def close(self, grace_seconds: float = 0.0) -> None:
        await self._engine.close(grace_seconds)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer, None]:
        end = "dropped"
        try:
            async with aclosing(self._engine.stream(ask)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        end = "answered"
                        self._count(piece)
                    yield piece
        except NoAnswer as failure:
            end = type(failure).__name__.lower()
            raise
        finally:
            self._metrics.answers.labels(self.name, end).inc()

    def _count(self, answer: Answer) -> None:
        for kind, count in (("prompt", answer.prompt_tokens), ("completion", answer.completion_tokens)):
            self._metrics.tokens.labels(self.name, kind).inc(count or 0)


class MetricsMiddleware:
    """Counts requests by route and status, and how long they take, refused ones included."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Sequence[str] = ROUTES) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._routes else "page"
        status = 499  # as nginx: the client left before the response began

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        self._metrics.in_flight += route != "page"
        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.in_flight -= route != "page"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
