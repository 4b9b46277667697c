"""The page's back end: stores uploaded pictures, has questions answered, serves pictures and answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import OpenGritError
from opengrit.core.images import DEFAULT_LIMITS, Limits
from opengrit.core.types import Completion, Transcript
from opengrit.grounding.frames import UNIT_BY_MODEL_TYPE, Unit, frame_for
from opengrit.grounding.transcribing import transcribe
from opengrit.inference.answer import Answer, check_question
from opengrit.models.sticker_models import is_sticker_sized, what_it_knows
from opengrit.reports.live import LiveReply, Progress, answer_html
from opengrit.sampling import SamplingSettings
from opengrit.serving.bodies import read_json
from opengrit.serving.decoders import OPEN_FORMATS, DecoderPool
from opengrit.serving.engine import Ask, Busy, Engine, NoAnswer, TooLate, cancel_all
from opengrit.serving.examples import PageExample, PageExamples
from opengrit.serving.security import MAX_ASPECT, Refused, UploadLimits
from opengrit.serving.session_store import SessionStore, StoredPicture, plain_name, prepare
from opengrit.serving.streams import ClosingStream

_log = logging.getLogger(__name__)

MAX_QUESTION = 4000  # characters
_UPDATE_SECONDS = 0.1  # between two updates of a text that grows
_MAX_ASK_BYTES = 64 * 1024
_NOTHING = Transcript("", None, None, None, (), (), ())


@dataclass(frozen=True, slots=True)
class PageSettings:
    """How long an answer may take on the page, how it is asked for, and which pictures it takes.

    `only_stickers` names the engines whose models know sticker world alone; `examples` are offered to ask (default: stickers).
    """

    deadline_seconds: float = 120.0
    strategy: str = "grounded"
    system: str | None = None
    limits: Limits = field(
        default_factory=lambda: replace(DEFAULT_LIMITS, max_aspect=MAX_ASPECT, formats=OPEN_FORMATS)
    )
    only_stickers: frozenset[str] = frozenset()
    examples: PageExamples | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a visitor asks: the stored picture's name, the question, the models' names, and a name to stop it by."""

    picture: str
    question: str
    models: tuple[str, ...]
    id: str

    @classmethod
    def read(cls, content: bytes | bytearray) -> Question:
        """The question in a request's body. Raises Refused."""
        value = read_json(content, UploadLimits(json_values=200))
        if not isinstance(value, dict):
            raise Refused(400, "a question is a JSON object, this is not; reload the page")
        names = value.get("models") or []
        texts = [value.get(name) or "" for name in ("picture", "question", "id")]
        if not isinstance(names, list) or not all(isinstance(text, str) for text in (*names, *texts)):
            raise Refused(400, "a question consists of texts, this does not; reload the page")
        return cls(texts[0], texts[1].strip(), tuple(names), texts[2])


class PageBackend:
    """What happens when a visitor asks, stops, uploads a picture or downloads an answer."""

    def __init__(self, engines: Mapping[str, Engine], settings: PageSettings, decoders: DecoderPool) -> None:
        self._engines = dict(engines)
        self._settings = settings
        self._store = SessionStore()
        self._stops: dict[str, asyncio.Event] = {}
        self._decoders = decoders
        self._asked = 0
        self._shown = short_names(list(engines))

    # -- pictures -------------------------------------------------------------------------------------------------

    def add_examples(self, examples: Sequence[PageExample]) -> list[tuple[str, PageExample]]:
        """The examples with the names under which their pictures are stored."""
        return [(self._store.add_example(prepare(e.content, name=e.name)), e) for e in examples]

    def routes(self) -> APIRouter:
        """Questions, uploads, pictures and downloads; everything is served from memory."""
        router = APIRouter(prefix="/page", include_in_schema=False)
        router.add_api_route("/alive", self.is_alive, methods=["GET"], response_model=None)
        router.add_api_route("/questions", self.answer, methods=["POST"], response_model=None)
        router.add_api_route("/stop", self.stop, methods=["POST"], response_model=None)
        router.add_api_route("/pictures", self.upload, methods=["POST"], response_model=None)
        router.add_api_route("/pictures/{name}", self.preview, methods=["GET"], response_model=None)
        router.add_api_route("/answers/{name}.png", self.drawn, methods=["GET"], response_model=None)
        router.add_api_route("/answers/{name}.json", self.as_json, methods=["GET"], response_model=None)
        return router

    async def upload(self, request: Request) -> JSONResponse:
        """Store the picture in the request's body; the response has its name and a fragment that shows it."""
        content = await _read_body(request, self._settings.limits.max_bytes)
        if content is None:
            megabytes = self._settings.limits.max_bytes / 2**20
            return _refusal(413, f"A picture's file has at most {megabytes:g} MB here; save it smaller.")
        try:
            async with self._deadline():
                shown = await self._decoders.preview(content)
        except TooLate as error:
            return _refusal(504, _sentence(str(error)))
        except OpenGritError as error:
            return _refusal(400, _sentence(str(error)))
        title = plain_name(request.query_params.get("name", ""))
        picture = StoredPicture(content, title, shown.size, shown.content, shown.media_type)
        name = self._store.add_picture(picture)
        waiting = [LiveReply("", Progress.WAITING, _NOTHING)]
        note = self._note(picture.size, list(self._engines))
        html = answer_html("", waiting, src=picture_path(name), size=picture.size, id=f"p-{name}", note=note)
        return JSONResponse({"name": name, "src": picture_path(name), "html": str(html)})

    async def is_alive(self) -> Response:
        """An empty response, for a page that waits for an answer and checks that the server runs."""
        return Response(status_code=204)

    async def preview(self, name: str) -> Response:
        """The smaller copy of a picture."""
        stored = self._store.picture(name)
        if stored is None:
            return _gone()
        headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(stored.preview, media_type=stored.media_type, headers=headers)

    async def drawn(self, name: str) -> Response:
        """The picture of an answer with its boxes, as PNG, in the picture's own pixels."""
        stored = self._store.answer(name)
        if stored is None:
            return _gone()
        try:
            async with self._deadline():
                content = await self._decoders.draw(stored.picture.content, stored.answer.boxes)
        except (TooLate, OpenGritError) as error:
            return Response(_sentence(str(error)), status_code=504, media_type="text/plain")
        return _download(content, "image/png", f"{stored.picture.name}-boxes.png")

    async def as_json(self, name: str) -> Response:
        """An answer as JSON."""
        stored = self._store.answer(name)
        if stored is None:
            return _gone()
        text = json.dumps(stored.answer.as_json(), indent=2)
        return _download(text.encode("utf-8"), "application/json", f"{stored.picture.name}-answer.json")

    # -- questions ------------------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        """The page's updates while the answers to a question grow, each a line of JSON."""
        content = await _read_body(request, _MAX_ASK_BYTES)
        if content is None:
            return _refusal(413, "The question is too long; write it shorter.")
        try:
            question = Question.read(content)
        except Refused as refused:
            return _refusal(refused.status, _sentence(refused.message))
        updates = self.ask(question)
        return ClosingStream(_lines(updates), media_type="application/x-ndjson", source=updates)

    async def ask(self, asked: Question) -> AsyncGenerator[dict[str, Any]]:
        """The page's updates while the answers grow. The last one has `running` False."""
        stored = self._store.picture(asked.picture)
        if problem := self._problem(asked, stored):
            yield _update("", status=problem, running=False)
            return
        assert stored is not None
        self._asked += 1
        id, src = f"a{self._asked}", picture_path(asked.picture)
        names = [name for name in self._engines if len(self._engines) == 1 or name in asked.models]
        note = self._note(stored.size, names)
        stopped = asyncio.Event()
        self._stop(asked.id)
        self._stops[asked.id] = stopped
        html = status = ""
        try:
            async with aclosing(self._answers(stored, asked.question, names, stopped)) as changes:
                async for replies in changes:
                    html = str(
                        answer_html(asked.question, replies, src=src, size=stored.size, id=id, note=note)
                    )
                    status = _status(replies)
                    yield _update(html, status=status, running=True)
            yield _update(html, status=status, running=False)
        except (NoAnswer, OpenGritError) as error:
            yield _update("", status=_sentence(str(error)), running=False)
        finally:
            if self._stops.get(asked.id) is stopped:
                del self._stops[asked.id]

    async def stop(self, request: Request) -> Response:
        """End the question whose name is the request's body; what is written stays."""
        content = await _read_body(request, 1024)
        if content is not None:
            self._stop(content.decode("utf-8", "replace"))
        return Response(status_code=204)

    def _stop(self, id: str) -> None:
        if stopped := self._stops.get(id):
            stopped.set()

    @asynccontextmanager
    async def _deadline(self) -> AsyncGenerator[None]:
        """As long as an answer may take. Raises TooLate."""
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                yield
        except TimeoutError:
            raise TooLate(self._settings.deadline_seconds) from None

    def _problem(self, asked: Question, stored: StoredPicture | None) -> str:
        if not asked.picture:
            return "Choose a picture first: drop one, paste one, or take an example."
        if stored is None:
            return "The server no longer has this picture; choose it again."
        if not asked.question:
            return "Write a question first."
        if len(asked.question) > MAX_QUESTION:
            return f"A question has at most {MAX_QUESTION} characters here; write it shorter."
        if len(self._engines) > 1 and not set(asked.models) & set(self._engines):
            return "Choose at least one model."
        try:
            check_question(asked.question)
        except OpenGritError as error:
            return _sentence(str(error))
        return ""

    def _note(self, size: Size, names: Sequence[str]) -> str:
        """What an asker should know of these engines where a picture of this size is not sticker world's."""
        knowing_little = [self._shown[name] for name in names if name in self._settings.only_stickers]
        if not knowing_little or is_sticker_sized(size):
            return ""
        return f"{what_it_knows(*knowing_little)}."

    async def _answers(
        self, stored: StoredPicture, question: str, names: Sequence[str], stopped: asyncio.Event
    ) -> AsyncGenerator[list[LiveReply]]:
        """The answers of these engines so far, whenever one has changed, but not too often."""
        replies = {name: LiveReply(self._shown[name], Progress.WRITING, _NOTHING) for name in names}
        yield list(replies.values())
        began = time.perf_counter()
        async with self._deadline():
            image = await self._decoders.open(stored.content)
        spent = time.perf_counter() - began
        changed = asyncio.Event()

        async def follow(name: str) -> None:
            async with aclosing(self._follow(self._engines[name], image, stored, question, spent)) as changes:
                async for reply in changes:
                    replies[name] = reply
                    changed.set()

        work = [asyncio.create_task(follow(name)) for name in names]
        all_done = asyncio.create_task(asyncio.wait(work))
        waiting = asyncio.create_task(stopped.wait())
        try:
            while not all_done.done() and not stopped.is_set():
                change = asyncio.create_task(changed.wait())
                await asyncio.wait((change, all_done, waiting), return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                changed.clear()
                if not stopped.is_set():
                    yield list(replies.values())
                    await asyncio.wait((all_done, waiting), timeout=_UPDATE_SECONDS)
        finally:
            await cancel_all(*work, all_done, waiting)
        yield [
            replace(reply, progress=Progress.STOPPED) if reply.progress is Progress.WRITING else reply
            for reply in replies.values()
        ]

    async def _follow(
        self, engine: Engine, image: Image.Image, stored: StoredPicture, question: str, spent_seconds: float
    ) -> AsyncGenerator[LiveReply]:
        """One engine's answer as it grows; a failure is shown in its place."""
        asked = Ask(
            image=image,
            question=question,
            settings=SamplingSettings(temperature=0.0),
            strategy=self._settings.strategy,
            system=self._settings.system,
            deadline_seconds=self._settings.deadline_seconds,
            spent_seconds=spent_seconds,
        )
        seen_size = _seen_size(engine, stored.size)
        shown = self._shown[engine.name]
        reply = LiveReply(shown, Progress.WRITING, _NOTHING, placed=seen_size is not None)
        frame = frame_for(engine.frame, seen_size or stored.size)
        text = ""
        try:
            async with aclosing(engine.stream(asked)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        yield self._finished(engine, piece, stored)
                        return
                    text += piece
                    transcript = transcribe(
                        Completion(text), strategy=asked.strategy, frame=frame, system=asked.system
                    )
                    reply = replace(reply, transcript=transcript)
                    yield reply
        except Busy as error:
            wait = "a second" if error.retry_after_seconds == 1 else f"{error.retry_after_seconds} seconds"
            problem = f"Too many people are asking right now. Try again in {wait}."
        except (NoAnswer, OpenGritError) as error:
            problem = _sentence(str(error))
        # The person who asked sees that it failed, whatever it was; why is for the log.
        except Exception:
            _log.exception("the page's question to %s failed", engine.name)
            problem = "Something went wrong on the server; its log says what. Try again."
        else:
            problem = "The model ended without an answer. Try again."
        yield replace(reply, progress=Progress.FAILED, problem=problem)

    def _finished(self, engine: Engine, answer: Answer, stored: StoredPicture) -> LiveReply:
        name = self._store.add_answer(answer, stored)
        return LiveReply(
            self._shown[engine.name],
            Progress.DONE,
            answer.transcript,
            seconds=answer.seconds,
            completion_tokens=answer.completion_tokens,
            downloads=(
                ("Picture (PNG)", f"page/answers/{name}.png"),
                ("Answer (JSON)", f"page/answers/{name}.json"),
            ),
        )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """What the page calls each of these models: a hub id without its owner, where no two are then called the same."""
    last = [name.rpartition("/")[2] or name for name in names]
    return {name: short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)}


async def _lines(updates: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[str]:
    async with aclosing(updates):
        async for update in updates:
            yield json.dumps(update) + "\n"


async def _read_body(request: Request, max_bytes: int) -> bytes | None:
    """The request's body, or None as soon as it is longer than allowed."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            return None
    return bytes(content)


def _update(html: str, *, status: str, running: bool) -> dict[str, Any]:
    return {"html": html, "status": status, "running": running}


def _status(replies: Sequence[LiveReply]) -> str:
    if any(reply.progress is Progress.WRITING for reply in replies):
        return "Writing the answer."
    return ""


def _seen_size(engine: Engine, picture_size: Size) -> Size | None:
    """The size in which the model sees a picture; the picture's own where the frame does not depend on it."""
    unit = UNIT_BY_MODEL_TYPE.get(engine.frame)
    if (unit or Unit(engine.frame)) is not Unit.PIXELS:
        return picture_size
    return engine.seen_size(picture_size)


def picture_path(name: str) -> str:
    """A picture's address, relative to the page's."""
    return f"page/pictures/{name}"


def _sentence(text: str) -> str:
    """The message with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _refusal(status: int, problem: str) -> JSONResponse:
    return JSONResponse({"error": problem}, status_code=status)


def _gone() -> Response:
    problem = "The server no longer has this; ask again."
    return Response(problem, status_code=404, media_type="text/plain")


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=media_type, headers=headers)
