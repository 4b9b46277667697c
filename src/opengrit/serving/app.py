"""The HTTP API: grounded answers, OpenAI's chat completions, models, health and metrics; the page on top of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from opengrit.core.errors import DataError
from opengrit.inference.grounder import Answer, check_question
from opengrit.sampling import SamplingSettings
from opengrit.serving import chat
from opengrit.serving.engine import (
    Ask,
    Busy,
    Closing,
    Engine,
    EngineFailed,
    NoAnswer,
    TooLate,
    Unanswerable,
    answered,
)
from opengrit.serving.fetch import Fetcher
from opengrit.serving.metrics import Counting, Metrics
from opengrit.serving.safety import (
    Access,
    Guard,
    Refused,
    UploadLimits,
    decode_base64,
    decode_data_uri,
    error_response,
    open_upload,
    read_json,
)
from opengrit.serving.schemas import (
    ChatRequest,
    ErrorResponse,
    GroundForm,
    GroundRequest,
    GroundResponse,
    read,
)
from opengrit.version import __version__

_DECODED_AT_ONCE = 2  # pictures; each may take some hundred megabytes while it is decoded
_CLIENT_GONE = 499
_REFERENCE = "#/components/schemas/{model}"
_T = TypeVar("_T")
_STATUS: dict[type[NoAnswer], int] = {
    Busy: 429,
    Closing: 503,
    TooLate: 504,
    Unanswerable: 400,
    EngineFailed: 502,
}


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the server answers: who may ask, how much at once, how long, and from where pictures are fetched.

    Seconds: `deadline_seconds` for one answer, `grace_seconds` for the answers under way when the server is stopped.
    """

    access: Access = field(default_factory=Access)
    limits: UploadLimits = field(default_factory=UploadLimits)
    fetch_hosts: tuple[str, ...] = ()
    deadline_seconds: float = 120.0
    max_new_tokens: int = 4096
    grace_seconds: float = 10.0


class _Events(StreamingResponse):
    """A stream of events whose question is given up at once when they cannot be sent, read to their end or not."""

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        pieces: AsyncGenerator[str | Answer, None],
        *,
        headers: dict[str, str],
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._pieces = pieces  # events that were never begun do not close them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces), aclosing(self._events):
            await super().__call__(scope, receive, send)


class _ClientGone(Exception):
    """Nobody waits for the response any more."""


def build_app(engines: Mapping[str, Engine], settings: ServeSettings, *, page: bool = True) -> FastAPI:
    """The application over engines by name, the first of which answers who names none; the page stands at `/`.

    The engines start and close with the application.
    """
    metrics = Metrics()
    watched: dict[str, Engine] = {name: metrics.watch(engine) for name, engine in engines.items()}
    service = Service(watched, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in watched.values():
            await engine.start()
        yield
        await asyncio.gather(*(engine.close(settings.grace_seconds) for engine in watched.values()))
        service.close()

    app = FastAPI(
        title="OpenGRIT", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )  # FastAPI's documentation pages load scripts from another host
    app.state.metrics = metrics
    _add_routes(app, service, metrics)
    _add_errors(app)
    if page:
        from opengrit.serving.page import PageSettings, mount_page

        mount_page(
            app,
            watched,
            settings=PageSettings(deadline_seconds=settings.deadline_seconds, limits=settings.limits.picture),
        )
    app.add_middleware(Guard, access=settings.access, limits=settings.limits)
    app.add_middleware(Counting, metrics=metrics)
    return app


class Service:
    """Answers requests that were let in: reads them, asks an engine, shapes the answer."""

    def __init__(self, engines: Mapping[str, Engine], settings: ServeSettings) -> None:
        self._engines = engines
        self._settings = settings
        self._limits = settings.limits
        self._fetcher = Fetcher.of(settings.fetch_hosts, max_bytes=settings.limits.picture_bytes)
        self._decoders = ThreadPoolExecutor(_DECODED_AT_ONCE, thread_name_prefix="decode")
        self._since = int(time.time())

    def close(self) -> None:
        """End the threads that open pictures."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def models(self) -> dict[str, Any]:
        """The engines in OpenAI's shape."""
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": self._since, "owned_by": "opengrit"}
                for name in self._engines
            ],
        }

    async def ground(self, request: Request) -> Response:
        """POST /v1/ground."""
        kind = _media_type(request)
        if kind == "application/json":
            asked = read(GroundRequest, read_json(await request.body(), self._limits))
            engine = self._engine(asked.model)
            self._check_question(asked.question)
            picture = await self._picture(asked.image, param="image")
        elif kind == "multipart/form-data":
            asked, content = await self._form(request)
            engine = self._engine(asked.model)
            self._check_question(asked.question)
            picture = await self._opened(content, param="image")
        else:
            raise Refused(
                415,
                f"a body is application/json or multipart/form-data, got {kind[:80]!r}; set the header Content-Type",
            )
        settings = SamplingSettings(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            max_new_tokens=chat.allowed_tokens(
                asked.max_new_tokens if "max_new_tokens" in asked.model_fields_set else None,
                limit=self._settings.max_new_tokens,
                param="max_new_tokens",
            ),
            seed=asked.seed,
        )
        ask = self._ask(picture, asked.question, settings, strategy=asked.strategy, stops=tuple(asked.stop))
        answer = await _while_connected(request, answered(engine, ask))
        return JSONResponse(answer.as_json())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        if (kind := _media_type(request)) != "application/json":
            raise Refused(415, f"a body is application/json, got {kind[:80]!r}; set the header Content-Type")
        asked = read(ChatRequest, read_json(await request.body(), self._limits))
        engine = self._engine(asked.model)
        turn = chat.read_turn(asked, frame=engine.frame)
        self._check_question(turn.question)
        settings = chat.read_settings(asked, max_new_tokens=self._settings.max_new_tokens)
        count = asked.n or 1
        if count > 1 and asked.stream:
            raise Refused(
                400, f"n: is 1 where the text is streamed, got {count}; ask {count} times", param="n"
            )
        picture = await self._picture(turn.picture, param="messages")
        asks = [
            self._ask(
                picture,
                turn.question,
                # Choices draw from seeds that follow each other; the first is what one alone would be.
                replace(settings, seed=(settings.seed + index) % 2**63),
                strategy=turn.strategy,
                stops=chat.read_stops(asked),
            )
            for index in range(count)
        ]
        if asked.stream:
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await self._streamed(request, engine, asks[0], with_usage=with_usage)
        answers = await _while_connected(request, _all(engine, asks))
        return JSONResponse(chat.completion(answers, model=engine.name))

    async def _streamed(self, request: Request, engine: Engine, ask: Ask, *, with_usage: bool) -> Response:
        """The answer as events. The first piece is waited for, so that a refusal is a status and no event."""
        pieces = engine.stream(ask)
        try:
            first = await _while_connected(request, _first(pieces))
        except BaseException:
            await pieces.aclose()
            raise
        events = chat.events(first, pieces, model=engine.name, with_usage=with_usage)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return _Events(events, pieces, headers=headers)

    def _ask(
        self,
        picture: Image.Image,
        question: str,
        settings: SamplingSettings,
        *,
        strategy: str,
        stops: tuple[str, ...],
    ) -> Ask:
        return Ask(
            image=picture,
            question=question,
            settings=settings,
            strategy=strategy,
            deadline_seconds=self._settings.deadline_seconds,
            cut_before=stops,
        )

    def _engine(self, name: str | None) -> Engine:
        if name is None:
            return next(iter(self._engines.values()))
        if name not in self._engines:
            raise Refused(
                404,
                f"model: is one of {', '.join(self._engines)}, got {name[:100]!a}; see /v1/models",
                param="model",
                code="model_not_found",
            )
        return self._engines[name]

    def _check_question(self, question: str) -> None:
        if len(question) > self._limits.question_characters:
            raise Refused(
                400,
                f"question: has at most {self._limits.question_characters} characters, got {len(question)}; shorten it",
                param="question",
            )
        try:
            check_question(question)
        except DataError as error:
            raise Refused(400, f"question: {error}", param="question") from None

    async def _picture(self, address: str, *, param: str) -> Image.Image:
        """The picture in base64, in a data URI, or at an address that may be fetched."""
        head = address[:16].lower()
        if head.startswith("data:"):
            return await self._opened(decode_data_uri(address, param=param), param=param)
        if ":" in head:
            return await self._opened(await self._fetcher.fetch(address, param=param), param=param)
        return await self._opened(decode_base64(address, param=param), param=param)

    async def _opened(self, content: bytes, *, param: str) -> Image.Image:
        opening = partial(open_upload, content, self._limits, param=param)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, opening)

    async def _form(self, request: Request) -> tuple[GroundForm, bytes]:
        async with request.form(max_files=1, max_fields=32, max_part_size=64 * 1024) as form:
            upload = form.get("image")
            if not isinstance(upload, UploadFile):
                raise Refused(
                    400,
                    "image: a form has the picture's file in the field image, this one has not",
                    param="image",
                )
            fields: dict[str, Any] = {"image": ""}
            for name in form:
                if name == "stop":
                    fields[name] = form.getlist(name)
                elif name != "image":
                    fields[name] = form[name]
            return read(GroundForm, fields, strict=False), await upload.read()


async def _all(engine: Engine, asks: list[Ask]) -> list[Answer]:
    """The answers to all of them; where one fails the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answered(engine, ask)) for ask in asks]
    except* NoAnswer as failures:
        raise _leaf(failures) from None
    return [task.result() for task in tasks]


def _leaf(failures: BaseExceptionGroup[NoAnswer]) -> NoAnswer:
    first = failures.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


async def _first(pieces: AsyncGenerator[str | Answer, None]) -> str | Answer:
    return await anext(pieces)


async def _while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of the work; the work is given up when the client goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


# -- routes -------------------------------------------------------------------------------------------------------------


def _add_routes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": text}
        for status, text in (
            (400, "The request cannot be answered; the message says why."),
            (401, "A key is needed."),
            (404, "No such model."),
            (408, "The request came in too slowly."),
            (413, "The request is too large."),
            (415, "The body is of another type."),
            (429, "The queue is full; see the header Retry-After."),
            (502, "The model failed."),
            (503, "The server is shutting down."),
            (504, "The answer was not finished in time."),
        )
    }

    @app.post(
        "/v1/ground",
        summary="Ask a picture a question; the answer points.",
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

    @app.get("/v1/models", summary="The models that can be asked.", responses={401: errors[401]})
    async def models() -> dict[str, Any]:
        return service.models()

    @app.get("/healthz", summary="Whether the server is up.")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="Counts for Prometheus.", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


def _body(models: dict[str, type[BaseModel]]) -> dict[str, Any]:
    content = {
        media: {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
        for media, model in models.items()
    }
    return {"requestBody": {"required": True, "content": content}}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The API's document, with the bodies that the routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        kinds: list[type[BaseModel]] = [GroundRequest, GroundForm, ChatRequest]
        _, bodies = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
        document.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
        app.openapi_schema = document
    return app.openapi_schema


def _add_errors(app: FastAPI) -> None:
    handler = Callable[[Request, Any], Awaitable[Response]]

    async def refused(request: Request, error: Refused) -> Response:
        return error_response(error)

    async def no_answer(request: Request, error: NoAnswer) -> Response:
        headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Busy) else None
        return error_response(Refused(_STATUS.get(type(error), 500), str(error)), headers)

    async def http_error(request: Request, error: HTTPException) -> Response:
        return error_response(Refused(error.status_code, str(error.detail)), dict(error.headers or {}))

    async def gone(request: Request, error: _ClientGone) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def bug(request: Request, error: Exception) -> Response:
        return error_response(Refused(500, "the server has a bug here; its log says more"))

    handlers: dict[Any, handler] = {  # type: ignore[valid-type]
        Refused: refused,
        NoAnswer: no_answer,
        HTTPException: http_error,
        _ClientGone: gone,
        Exception: bug,
    }
    for kind, answer in handlers.items():
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type]
