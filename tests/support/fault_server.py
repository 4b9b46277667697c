"""A loopback server that speaks the OpenAI protocol and fails in many ways, as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Fault(Enum):
    """What the server does with a request."""

    NONE = "answers as it should"
    STATUS_500 = "HTTP 500"
    STATUS_503_HTML = "HTTP 503 with a page"
    BUSY = "HTTP 429"
    BUSY_RETRY_AFTER = "HTTP 429 with Retry-After"
    OUT_OF_QUOTA = "HTTP 429, and no money left"
    BAD_REQUEST = "HTTP 400"
    WRONG_KEY = "HTTP 401, repeating the key"
    SILENT = "takes the request and never answers"
    HALF_JSON = "half a JSON"
    SCORE_10 = "score 10"
    SCORE_MINUS_1 = "score -1"
    EMPTY_CHOICES = "empty choices"
    HTML = "a page with status 200"
    WRONG_ENCODING = "Latin-1 where UTF-8 is due"
    ERROR_BODY = "status 200 with an error body"
    RESET = "connection reset"
    DRIP = "a byte now and then, without end"
    PROSE = "prose instead of JSON"
    REFUSAL = "a refusal"
    CUT_SHORT = "connection closed in the middle of the body"
    LIST = "a JSON list"
    NULL_TEXT = "a message without text"


# The ways in which a judge may fail; each leaves a row unjudged.
TWELVE_AND_ONE = (
    Fault.STATUS_500,
    Fault.BUSY,
    Fault.BUSY_RETRY_AFTER,
    Fault.SILENT,
    Fault.HALF_JSON,
    Fault.SCORE_10,
    Fault.SCORE_MINUS_1,
    Fault.EMPTY_CHOICES,
    Fault.HTML,
    Fault.WRONG_ENCODING,
    Fault.ERROR_BODY,
    Fault.RESET,
    Fault.DRIP,
)


@dataclass(frozen=True)
class Request:
    """One request as it came in; `number` counts from 0."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part.get("text", "") for part in content)


def exact_score(request: Request) -> str:
    """A judge's reply that gives 1 to an answer equal to the standard answer, else 0."""
    lines = dict(line.split(": ", 1) for line in request.text.splitlines() if ": " in line)
    return json.dumps({"score": int(lines["Standard answer"] == lines["Model's answer"])})


@dataclass
class FaultServer:
    """`plan` says what happens to a request, `answer` what a good reply says. Both may be changed at any time."""

    plan: Callable[[Request], Fault]
    answer: Callable[[Request], str]
    models: tuple[str, ...] = ("stub",)
    retry_after: str = "7"
    usage: bool = True
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    drip_seconds: float = 0.02
    left: threading.Event = field(default_factory=threading.Event)  # a client went away during a stream

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while (request := await self._next(reader)) is not None:
                if not await self._reply(request, writer):
                    break
        writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            start = await reader.readexactly(1)
            if start == b"\x16":  # a TLS greeting; the connection is closed, which is a server without TLS
                return None
            head = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(len(self.requests), first.split()[1], headers, json.loads(raw) if raw else {})
        self.requests.append(request)
        return request

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Writes the reply; says whether the connection stays open."""
        fault = self.plan(request)
        match fault:
            case Fault.SILENT:
                await asyncio.Event().wait()
            case Fault.RESET:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            case Fault.CUT_SHORT:
                writer.write(_head(200, length=1000) + b'{"choices": [')
                await writer.drain()
                return False
            case Fault.DRIP:
                await self._drip(request, writer)
            case Fault.NONE if request.body.get("stream"):
                await self._stream(request, writer)
            case _:
                status, kind, body, more = self._whole(fault, request)
                writer.write(_head(status, kind=kind, length=len(body), more=more) + body)
        await writer.drain()
        return True

    def _whole(self, fault: Fault, request: Request) -> tuple[int, str, bytes, str]:
        """Status, content type, body and further headers of a reply that is sent whole."""
        json_type = "application/json"
        error = json.dumps(
            {"error": {"message": "overloaded", "type": "server_error", "code": None}}
        ).encode()
        page = b"<!doctype html><html><body><h1>Welcome, score 1</h1></body></html>"
        match fault:
            case Fault.NONE if request.path.endswith("/models"):
                listing = {
                    "object": "list",
                    "data": [{"id": name, "object": "model"} for name in self.models],
                }
                return 200, json_type, json.dumps(listing).encode(), ""
            case Fault.STATUS_500:
                return 500, json_type, error, ""
            case Fault.STATUS_503_HTML:
                return 503, "text/html", page, ""
            case Fault.BUSY:
                return 429, json_type, error, ""
            case Fault.BUSY_RETRY_AFTER:
                return 429, json_type, error, f"retry-after: {self.retry_after}\r\n"
            case Fault.OUT_OF_QUOTA:
                quota = {"error": {"message": "pay first", "code": "insufficient_quota"}}
                return 429, json_type, json.dumps(quota).encode(), ""
            case Fault.BAD_REQUEST:
                return 400, json_type, b'{"error": {"message": "too long"}}', ""
            case Fault.WRONG_KEY:
                echo = {"error": {"message": f"wrong key: {request.headers.get('authorization')}"}}
                return 401, json_type, json.dumps(echo).encode(), ""
            case Fault.HTML:
                return 200, "text/html", page, ""
            case Fault.ERROR_BODY:
                return 200, json_type, error, ""
            case Fault.LIST:
                return 200, json_type, b'[{"score": 1}]', ""
            case Fault.EMPTY_CHOICES:
                return 200, json_type, json.dumps(self._completion("") | {"choices": []}).encode(), ""
            case Fault.HALF_JSON:
                whole = json.dumps(self._completion('{"score": 1}')).encode()
                return 200, json_type, whole[: len(whole) // 2], ""
            case Fault.WRONG_ENCODING:
                text = json.dumps(self._completion('{"score": 1, "why": "caf\u00e9"}'), ensure_ascii=False)
                return 200, json_type, text.encode("latin-1"), ""
            case Fault.REFUSAL | Fault.NULL_TEXT:
                value = self._completion("")
                refusal = "I cannot help with that." if fault is Fault.REFUSAL else None
                value["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": refusal}
                return 200, json_type, json.dumps(value).encode(), ""
        texts = {
            Fault.SCORE_10: '{"score": 10}',
            Fault.SCORE_MINUS_1: '{"score": -1}',
            Fault.PROSE: "The answer is close to the standard answer, so I give it a score of 1.",
        }
        text = texts[fault] if fault in texts else self.answer(request)
        return 200, json_type, json.dumps(self._completion(text)).encode(), ""

    def _completion(self, text: str) -> dict[str, Any]:
        value: dict[str, Any] = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": self.models[0],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            ],
        }
        if self.usage:
            value["usage"] = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
        return value

    async def _drip(self, request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, length=1_000_000))
        await self._until_left(writer, b" ")

    async def _until_left(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        try:
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(self.drip_seconds)
        finally:
            self.left.set()

    async def _stream(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """The answer in pieces of one word; "<break>" in it ends the connection, "<stall>" drips comments."""
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for word in self.answer(request).split(" "):
            if word == "<break>":
                writer.write(b"0\r\n\r\n")
                return
            if word == "<stall>":
                await self._until_left(writer, _chunk(b": still here\n\n"))
                return
            if word == "<error>":
                writer.write(_event({"error": {"message": "out of memory"}}))
                continue
            writer.write(_event({"choices": [{"index": 0, "delta": {"content": word + " "}}]}))
        writer.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        if self.usage:
            writer.write(_event({"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 10}}))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _head(status: int, *, length: int, kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{more}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(value: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


@contextmanager
def fault_server(
    plan: Callable[[Request], Fault] | Fault = Fault.NONE,
    *,
    answer: Callable[[Request], str] = exact_score,
    server_class: type[FaultServer] = FaultServer,
    tls: ssl.SSLContext | None = None,
    **more: Any,
) -> Iterator[FaultServer]:
    """A running server on a port of its own; it ends with the block, whatever it is doing."""
    server = server_class(plan if callable(plan) else lambda request: plan, answer, **more)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512, ssl=tls)
        scheme = "http" if tls is None else "https"
        server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), name="fault-server")
    thread.start()
    try:
        assert ready.wait(60)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
