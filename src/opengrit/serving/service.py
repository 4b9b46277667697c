"""The requests behind the routes: each is read, asked of an engine, and its answer shaped for the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.types import Receive, Scope, Send

from opengrit.core.errors import DataError
from opengrit.inference.answer import Answer, check_question
from opengrit.sampling import SamplingSettings
from opengrit.serving import chat
from opengrit.serving.engine import Ask, Engine, answered, cancel_all
from opengrit.serving.fetch import Fetcher
from opengrit.serving.schemas import ChatRequest, GroundForm, GroundRequest, read
from opengrit.serving.security import (
    Access,
    Refused,
    UploadLimits,
    bad_parameter,
    decode_base64,
    decode_data_uri,
    open_upload,
    read_json,
)

_DECODED_AT_ONCE = 2  # pictures; each may take some hundred megabytes while it is decoded
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the server answers: who may ask, how much at once, for how long, and from which hosts pictures are fetched.

    Seconds: `deadline_seconds` for one answer, `grace_seconds` for the answers in progress when the server is stopped.
    """

    access: Access = field(default_factory=Access)
    limits: UploadLimits = field(default_factory=UploadLimits)
    fetch_hosts: tuple[str, ...] = ()
    deadline_seconds: float = 120.0
    max_new_tokens: int = 4096
    grace_seconds: float = 10.0


class ClientGone(Exception):
    """The client has left; nobody waits for the response."""


class Service:
    """Answers the requests that passed the security checks."""

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
        asked: GroundRequest
        match _media_type(request):
            case "application/json":
                asked, upload = read(GroundRequest, read_json(await request.body(), self._limits)), None
            case "multipart/form-data":
                asked, upload = await self._form(request)
            case kind:
                raise Refused(
                    415,
                    f"a body is application/json or multipart/form-data, got {kind[:80]!r}; "
                    "set the header Content-Type",
                )
        engine = self._engine(asked.model)
        self._check_question(asked.question)
        picture = await (
            self._picture(asked.image, param="image")
            if upload is None
            else self._opened(upload, param="image")
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
        deadline = self._settings.deadline_seconds
        ask = Ask(picture, asked.question, settings, asked.strategy, deadline, tuple(asked.stop))
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
            raise bad_parameter("n", f"is 1 where the text is streamed, got {count}; ask {count} times")
        picture = await self._picture(turn.picture, param="messages")
        deadline = self._settings.deadline_seconds
        ask = Ask(picture, turn.question, settings, turn.strategy, deadline, chat.read_stops(asked))
        if asked.stream:
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await self._streamed(request, engine, ask, with_usage=with_usage)
        # Choices sample with consecutive seeds; the first is what one alone would be.
        seeds = [(settings.seed + index) % 2**63 for index in range(count)]
        asks = [replace(ask, settings=replace(settings, seed=seed)) for seed in seeds]
        answers = await _while_connected(request, _all(engine, asks))
        return JSONResponse(chat.completion(answers, model=engine.name))

    async def _streamed(self, request: Request, engine: Engine, ask: Ask, *, with_usage: bool) -> Response:
        """The answer as events. The first piece is awaited, so that a refusal is a status and no event."""
        pieces = engine.stream(ask)
        try:
            first = await _while_connected(request, anext(pieces))
        except BaseException:
            await pieces.aclose()
            raise
        return _Events(chat.events(first, pieces, model=engine.name, with_usage=with_usage), pieces)

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
            raise bad_parameter(
                "question",
                f"has at most {self._limits.question_characters} characters, got {len(question)}; shorten it",
            )
        try:
            check_question(question)
        except DataError as error:
            raise bad_parameter("question", f"{error}") from None

    async def _picture(self, address: str, *, param: str) -> Image.Image:
        """The picture in base64, in a data URI, or at an address from an allowed host."""
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
                raise bad_parameter(
                    "image", "a form has the picture's file in the field image, this one has not"
                )
            fields: dict[str, Any] = {"image": ""}
            for name in form:
                if name == "stop":
                    fields[name] = form.getlist(name)
                elif name != "image":
                    fields[name] = form[name]
            return read(GroundForm, fields, strict=False), await upload.read()


class _Events(StreamingResponse):
    """A stream of events; as soon as they cannot be sent, their question is dropped."""

    def __init__(self, events: AsyncGenerator[str, None], pieces: AsyncGenerator[str | Answer, None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._pieces = pieces  # closing events that never began does not close the pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces), aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _all(engine: Engine, asks: list[Ask]) -> list[Answer]:
    """The answers to all of them; when one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(answered(engine, ask)) for ask in asks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_all(*tasks)


async def _while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """The result of the work, which is cancelled when the client leaves. Raises ClientGone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        await cancel_all(working, leaving)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
