"""The requests behind the routes: each is read, asked of an engine, and its answer shaped for the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from PIL import Image

from opengrit.core.errors import DataError, ImageError
from opengrit.grounding.prompts import Strategy
from opengrit.inference.answer import Answer, check_question
from opengrit.models.sticker_models import what_it_knows
from opengrit.sampling import SamplingSettings
from opengrit.serving import chat
from opengrit.serving.bodies import BodyReader, decode_base64, decode_data_uri
from opengrit.serving.chat import ReplyForm
from opengrit.serving.decoders import DecoderPool
from opengrit.serving.engine import Ask, Engine, TooLate, answered, cancel_all
from opengrit.serving.examples import PageExamples
from opengrit.serving.fetch import Fetcher
from opengrit.serving.schemas import ChatRequest, GroundForm, GroundRequest, read
from opengrit.serving.security import (
    Access,
    Refused,
    UploadLimits,
    bad_parameter,
)
from opengrit.serving.streams import ClosingStream

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the server answers: who may ask, how much at once, for how long, and from which hosts pictures are fetched.

    Seconds: `deadline_seconds` for one answer, `grace_seconds` for the answers in progress when the server is stopped.
    `strategy` and `system` are how questions are put that do not say how themselves. `only_stickers` names the models that know sticker world
    alone, which the page says where one is asked about another picture, and /v1/models says always. `examples` are what the
    page offers to ask (default: stickers).
    """

    access: Access = field(default_factory=Access)
    limits: UploadLimits = field(default_factory=UploadLimits)
    fetch_hosts: tuple[str, ...] = ()
    deadline_seconds: float = 120.0
    max_new_tokens: int = 4096
    grace_seconds: float = 10.0
    strategy: str = Strategy.GROUNDED.value
    system: str | None = None
    only_stickers: frozenset[str] = frozenset()
    examples: PageExamples | None = None


class ClientGone(Exception):
    """The client has left; nobody waits for the response."""


class Service:
    """Answers the requests that passed the security checks."""

    def __init__(self, engines: Mapping[str, Engine], settings: ServeSettings, decoders: DecoderPool) -> None:
        self._engines = engines
        self._settings = settings
        self._limits = settings.limits
        self._fetcher = Fetcher.of(settings.fetch_hosts, max_bytes=settings.limits.picture_bytes)
        self._decoders = decoders
        self._bodies = BodyReader(settings.limits)
        self._since = int(time.time())

    def close(self) -> None:
        """End the thread that reads bodies."""
        self._bodies.close()

    def models(self) -> dict[str, Any]:
        """The engines in OpenAI's shape."""
        return {"object": "list", "data": [self.model(name) for name in self._engines]}

    def model(self, name: str) -> dict[str, Any]:
        """One engine in OpenAI's shape. Raises Refused."""
        engine = self._engine(name)
        found = {"id": engine.name, "object": "model", "created": self._since, "owned_by": "opengrit"}
        if engine.name not in self._settings.only_stickers:
            return found
        return found | {"note": what_it_knows(engine.name)}

    async def ground(self, request: Request) -> Response:
        """POST /v1/ground."""
        engine, ask = await self._ground_ask(request)
        answer = await _while_connected(request, answered(engine, ask))
        return JSONResponse(answer.as_json())

    async def _ground_ask(self, request: Request) -> tuple[Engine, Ask]:
        """The question in a request's body; the body itself is gone when this returns."""
        upload: bytes | None = None
        match _media_type(request):
            case "application/json":
                asked = await self._bodies.json(request, partial(read, GroundRequest))
            case "multipart/form-data":
                form = await self._bodies.form(request)
                asked, upload = read(GroundForm, form.fields, strict=False), form.image
            case kind:
                raise Refused(
                    415,
                    f"a body must be application/json or multipart/form-data, got {kind[:80]!r}; set the header "
                    "Content-Type",
                )
        began = time.perf_counter()
        engine = self._engine(asked.model)
        self._check_question(asked.question)
        settings = SamplingSettings(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=max(0, asked.top_k),
            max_new_tokens=chat.allowed_tokens(
                asked.max_new_tokens if "max_new_tokens" in asked.model_fields_set else None,
                limit=self._settings.max_new_tokens,
                param="max_new_tokens",
            ),
            seed=chat.asked_seed(asked.seed),
        )
        picture = (
            self._picture(asked.image, param="image")
            if upload is None
            else self._opened(upload, param="image")
        )
        return engine, await self._ask(
            request, picture, asked.question, settings, asked.strategy, tuple(asked.stop), began
        )

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        if (kind := _media_type(request)) != "application/json":
            raise Refused(
                415, f"a body must be application/json, got {kind[:80]!r}; set the header Content-Type"
            )
        engine, ask, reply = await self._chat_ask(request)
        if reply.stream:
            return await self._streamed(request, engine, ask, with_usage=reply.with_usage)
        # Choices sample with consecutive seeds; the first is what one alone would be.
        seeds = [(ask.settings.seed + index) % 2**63 for index in range(reply.count)]
        asks = [replace(ask, settings=replace(ask.settings, seed=seed)) for seed in seeds]
        answers = await _while_connected(request, _all(engine, asks))
        return JSONResponse(chat.completion(answers, model=engine.name))

    async def _chat_ask(self, request: Request) -> tuple[Engine, Ask, ReplyForm]:
        """The question in a request's body, and how its answer is given; the body is gone when this returns."""
        asked = await self._bodies.json(request, partial(read, ChatRequest))
        began = time.perf_counter()
        engine = self._engine(asked.model)
        turn = chat.read_turn(asked, frame=engine.frame)
        self._check_question(turn.question)
        settings = chat.read_settings(asked, max_new_tokens=self._settings.max_new_tokens)
        reply = chat.read_reply_form(asked)
        picture = self._picture(turn.picture, param="messages")
        ask = await self._ask(
            request, picture, turn.question, settings, turn.strategy, chat.read_stops(asked), began
        )
        return engine, ask, reply

    async def _ask(
        self,
        request: Request,
        picture: Awaitable[Image.Image],
        question: str,
        settings: SamplingSettings,
        strategy: str | None,
        cut_before: tuple[str, ...],
        began: float,
    ) -> Ask:
        """The question with its picture, which is opened within the deadline. Raises Refused, TooLate and ClientGone."""
        seconds = self._settings.deadline_seconds
        try:
            async with asyncio.timeout(began + seconds - time.perf_counter()):
                opened = await _while_connected(request, picture)
        except TimeoutError:
            raise TooLate(seconds) from None
        spent = time.perf_counter() - began
        return Ask(
            opened,
            question,
            settings,
            strategy or self._settings.strategy,
            self._settings.system,
            seconds,
            cut_before,
            spent,
        )

    async def _streamed(self, request: Request, engine: Engine, ask: Ask, *, with_usage: bool) -> Response:
        """The answer as events. The first piece is awaited, so that a refusal is a status and no event."""
        pieces = engine.stream(ask)
        try:
            first = await _while_connected(request, anext(pieces))
        except BaseException:
            await pieces.aclose()
            raise
        events = chat.events(first, pieces, model=engine.name, with_usage=with_usage)
        return ClosingStream(events, media_type="text/event-stream", source=pieces)

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
        if ":" in head and not head.startswith("data:"):
            return await self._opened(await self._fetcher.fetch(address, param=param), param=param)
        decode = decode_data_uri if head.startswith("data:") else decode_base64
        return await self._opened(await self._bodies.run(partial(decode, address, param=param)), param=param)

    async def _opened(self, content: bytes, *, param: str) -> Image.Image:
        try:
            return await self._decoders.open(content)
        except ImageError as error:
            raise bad_parameter(param, f"{error}", code="invalid_image") from None


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
