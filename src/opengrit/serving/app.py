"""The application: routes of the HTTP API, errors in OpenAI's shape, and the page on top."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from opengrit.serving.connections import ConnectionLimits
from opengrit.serving.decoders import DecoderPool
from opengrit.serving.engine import (
    Busy,
    Closing,
    Engine,
    EngineFailed,
    NoAnswer,
    TooLate,
    Unanswerable,
)
from opengrit.serving.metrics import Metrics, MetricsMiddleware
from opengrit.serving.schemas import ChatRequest, ErrorResponse, GroundForm, GroundRequest, GroundResponse
from opengrit.serving.security import Refused, SecurityMiddleware, error_response, not_found, wrong_method
from opengrit.serving.service import ClientGone, ServeSettings, Service
from opengrit.version import __version__

__all__ = ["ServeSettings", "build_app"]

_CLIENT_GONE = 499
_REFERENCE = "#/components/schemas/{model}"
_STATUS: dict[type[NoAnswer], int] = {
    Busy: 429,
    Closing: 503,
    TooLate: 504,
    Unanswerable: 400,
    EngineFailed: 502,
}


def build_app(engines: Mapping[str, Engine], settings: ServeSettings, *, page: bool = True) -> FastAPI:
    """The application over engines by name; the first answers a request that names none, and the page is at `/`.

    The engines start and close with the application.
    """
    metrics = Metrics()
    measured: dict[str, Engine] = {name: metrics.measured(engine) for name, engine in engines.items()}
    decoders = DecoderPool(
        settings.limits.picture,
        cpu_seconds=settings.limits.decode_seconds,
        scans=settings.limits.jpeg_scans,
    )
    service = Service(measured, settings, decoders)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in measured.values():
            await engine.start()
        yield
        stopping = time.monotonic() - (metrics.stopping_since or time.monotonic())
        grace = max(0.0, settings.grace_seconds - stopping)  # the server has waited for responses already
        await asyncio.gather(*(engine.close(grace) for engine in measured.values()))
        service.close()
        await asyncio.to_thread(decoders.close)

    app = FastAPI(
        title="OpenGRIT", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )  # FastAPI's documentation pages load scripts from another host
    app.state.metrics = metrics
    app.state.decoders = decoders
    app.state.connection_limits = ConnectionLimits(
        body_seconds=settings.limits.body_seconds, write_seconds=settings.limits.write_seconds
    )
    _add_routes(app, service, metrics)
    _add_errors(app)
    if page:
        from opengrit.serving.page import PageSettings, mount_page

        mount_page(
            app,
            measured,
            settings=PageSettings(
                strategy=settings.strategy,
                system=settings.system,
                deadline_seconds=settings.deadline_seconds,
                limits=settings.limits.picture,
                only_stickers=settings.only_stickers,
                examples=settings.examples,
            ),
            decoders=decoders,
        )
    app.add_middleware(SecurityMiddleware, access=settings.access, limits=settings.limits)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    return app


def _add_routes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": text}
        for status, text in (
            (400, "The request cannot be answered; the message says why."),
            (401, "A key is needed."),
            (404, "No such model."),
            (405, "Another method."),
            (408, "The request arrived too slowly."),
            (413, "The request is too large."),
            (415, "The body has another content type."),
            (429, "The queue is full; see the header Retry-After."),
            (502, "The model failed."),
            (503, "The server is shutting down."),
            (504, "The answer was not finished in time."),
        )
    }

    @app.post(
        "/v1/ground",
        summary="Ask a question about a picture; the answer comes with boxes.",
        response_model=None,
        responses={200: {"model": GroundResponse}, **errors},
        openapi_extra=_body({"application/json": GroundRequest, "multipart/form-data": GroundForm}),
    )
    async def ground(request: Request) -> Response:
        return await service.ground(request)

    @app.post(
        "/v1/chat/completions",
        summary="OpenAI's chat completions, for one question about one picture.",
        response_model=None,
        responses={200: {"description": "A completion, or its events."}, **errors},
        openapi_extra=_body({"application/json": ChatRequest}),
    )
    async def chat_completions(request: Request) -> Response:
        return await service.chat(request)

    async def models() -> dict[str, Any]:
        return service.models()

    async def model(model: str) -> dict[str, Any]:
        return service.model(model)

    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    seen = {405: errors[405]}
    asked = seen | {401: errors[401]}
    _add_readable(app, "/v1/models", models, "The models of this server.", responses=asked)
    missing = asked | {404: errors[404]}
    _add_readable(app, "/v1/models/{model:path}", model, "One of the models.", responses=missing)
    _add_readable(app, "/healthz", healthz, "Whether the server is up.", responses=seen)
    _add_readable(
        app,
        "/metrics",
        prometheus,
        "Counts for Prometheus.",
        responses=asked,
        response_class=PlainTextResponse,
    )
    # Behind all of them, since the first route that fits is taken; the page would take every path that is left.
    for route in [route for route in app.routes if isinstance(route, Route) and route.path.startswith("/")]:
        allowed = sorted(
            m for r in app.routes if isinstance(r, Route) and r.path == route.path for m in r.methods or ()
        )
        app.router.routes.append(Route(route.path, _OtherMethods(allowed)))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


def _add_readable(
    app: FastAPI, path: str, endpoint: Callable[..., Any], summary: str, **options: Any
) -> None:
    """A route for GET, and for HEAD, which the document leaves out."""
    app.add_api_route(path, endpoint, methods=["GET"], summary=summary, **options)
    app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)


class _OtherMethods:
    """Refuses what a path is not asked with. As no function, its route takes every method."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = wrong_method(self._allowed)
        await error_response(refused, {"Allow": ", ".join(self._allowed)})(scope, receive, send)


def _body(models: dict[str, type[BaseModel]]) -> dict[str, Any]:
    content = {
        media: {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
        for media, model in models.items()
    }
    return {"requestBody": {"required": True, "content": content}}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the bodies that the routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        kinds: list[type[BaseModel]] = [GroundRequest, GroundForm, ChatRequest]
        _, bodies = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
        document.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
        app.openapi_schema = document
    return app.openapi_schema


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error_response(error)

    @app.exception_handler(NoAnswer)
    async def no_answer(request: Request, error: NoAnswer) -> Response:
        headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Busy) else None
        status = _STATUS.get(type(error), 500)
        if isinstance(error, Unanswerable):
            status = 404 if error.status == 404 else 400
        return error_response(Refused(status, str(error)), headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return error_response(not_found())
        return error_response(Refused(error.status_code, str(error.detail)), dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ClientGone)
    async def client_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return error_response(Refused(500, "the server failed; its log says more"))
