"""Checks on requests before any work is done: hosts, origins, keys and sizes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opengrit.core.images import Limits
from opengrit.serving.decoders import OPEN_FORMATS

MAX_ASPECT = 200.0  # a picture's longer side over its shorter; what Qwen's processor takes
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# A page of ours alone: files of its own, and nothing inline.
STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Gradio's page has inline scripts and styles of its own; everything it loads is its own too.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_REFUSED_HEADERS = {
    401: {"WWW-Authenticate": 'Basic realm="OpenGRIT"'},
    503: {"Retry-After": "1", "Connection": "close"},
}
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The largest request: bytes and pixels of a picture, its longer side over its shorter, characters of a question.

    A body's JSON has at most `json_values` commas and opening brackets and `json_escapes` backslashes, in texts too: its
    picture needs none. A picture of up to 6 megapixels takes at most `decode_seconds` of CPU time, a larger one in
    proportion, and a JPEG has at most `jpeg_scans` scans.

    And the slowest client: seconds for its whole body, and for taking the next piece of a response.
    """

    picture_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    aspect: float = MAX_ASPECT
    question_characters: int = 8_000
    json_depth: int = 32
    json_values: int = 20_000
    json_escapes: int = 1_000_000  # base64 with its slashes and line ends escaped has half as many
    decode_seconds: float = 1.5
    jpeg_scans: int = 64
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    bytes_at_once: int = 512 * 2**20  # of all bodies held at one time

    @property
    def picture(self) -> Limits:
        """The limits of a picture, checked before it is decoded."""
        return Limits(self.picture_bytes, self.pixels, self.aspect, OPEN_FORMATS)

    @property
    def body_bytes(self) -> int:
        """A picture in base64, and room for the rest."""
        return self.picture_bytes * 4 // 3 + 2**20


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: `api_key` (None: anybody who reaches the port) and the host names the server answers to.

    `hosts` None means any name: right where the server is meant to be reached from elsewhere. A server on a loopback
    address answers to loopback names only, so that a web page cannot reach it under a name of its own. `origins` are host
    names (lower case) whose pages may ask too, besides the server's own: those of a proxy in front of it.
    """

    api_key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = _LOOPBACK_NAMES
    origins: frozenset[str] = frozenset()

    @classmethod
    def bound_to(cls, host: str, *, api_key: str | None = None, trusted: Sequence[str] = ()) -> Access:
        """For a server that listens on this address and is also known by the trusted names."""
        names = frozenset(name.lower() for name in trusted)
        if host not in _LOOPBACK_NAMES and not host.startswith("127."):
            return cls(api_key, None, names)
        return cls(api_key, _LOOPBACK_NAMES | {host} | names, names)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server."""
        return self.hosts is None or _host_name(host) in self.hosts

    def admits(self, authorization: str) -> bool:
        """Whether the Authorization header holds the key: as a bearer token, or as a password, which browsers ask for."""
        if self.api_key is None:
            return True
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(_digest(given.strip()), _digest(self.api_key))


def _digest(text: str) -> bytes:
    """Of one length for every text, so that a comparison reveals no length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{0,5})?")
_PORT = re.compile(r":\d+$")
_PROXY_HEADERS = (b"x-forwarded-", b"forwarded", b"x-gradio-", b"x-original-", b"x-real-")


def _host_name(host: str) -> str:
    """A Host header's name, without the port."""
    name = host.rsplit(":", 1)[0] if re.search(r":\d*$", host) and not host.endswith("]") else host
    return name.strip("[]").lower()


class Refused(Exception):
    """A refused request: the HTTP status, what is wrong, where, and the remedy."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        super().__init__(message)


def bad_parameter(param: str, problem: str, *, code: str | None = None) -> Refused:
    """A 400 for one parameter of a request; `problem` says the rule, the value and the remedy."""
    return Refused(400, f"{param}: {problem}", param=param, code=code)


def not_found() -> Refused:
    """A 404 for a path that leads nowhere."""
    return Refused(404, "this path does not exist; /openapi.json lists the paths", code="not_found")


def wrong_method(allowed: Sequence[str]) -> Refused:
    """A 405 for a path that is asked in another way."""
    return Refused(
        405, f"this path takes {' or '.join(allowed)}; see /openapi.json", code="method_not_allowed"
    )


def error_response(refused: Refused, headers: dict[str, str] | None = None) -> JSONResponse:
    """The error in the shape OpenAI's clients read."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(refused.status)
    if kind is None:
        kind = "invalid_request_error" if refused.status < 500 else "server_error"
    content = {
        "error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    }
    return JSONResponse(content, refused.status, headers)


class _BodyRefused(Exception):
    """Raised where a body is read that is too large or too slow; the middleware responds instead of the application."""


class _ClientStuck(Exception):
    """Raised where a response is sent to a client that does not take it."""


class SecurityMiddleware:
    """Middleware that refuses bad requests with a 4xx and gives every response its security headers.

    It checks, in this order: the Host header (a web page must not reach the server under its own name), the Origin
    header (another site's page must not ask through its visitor's browser), the key (not for /healthz), and the size
    and time of the body while it comes in. A client that stops reading its response is dropped, so that it does not
    hold its picture and its place without end. `page_policy` is the content security policy of everything but data.
    """

    def __init__(
        self, app: ASGIApp, *, access: Access, limits: UploadLimits, page_policy: str = _PAGE_POLICY
    ) -> None:
        self._app = app
        self._page_policy = page_policy
        self._access = access
        self._limits = limits
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send, _DATA_POLICY if _is_data(scope["path"]) else self._page_policy)
        try:
            self._check(scope)
            scope = self._without_strange_proxies(scope)
        except Refused as refused:
            headers = _REFUSED_HEADERS.get(refused.status)
            await error_response(refused, headers)(scope, receive, send)
            return
        body = _Body(receive, send, self._limits, self._hold)
        try:
            await self._app(scope, body.receive, body.send)
        except (_BodyRefused, _ClientStuck):
            pass
        except asyncio.CancelledError:  # the server stops, and the grace time is over
            body.refused = Refused(503, "the server is shutting down; use another one, or try again later")
        finally:
            self._bytes_held -= body.bytes
            if body.refused is not None and not body.started:
                headers = {"Connection": "close"} | (
                    {"Retry-After": "1"} if body.refused.status == 429 else {}
                )
                await error_response(body.refused, headers)(scope, receive, send)

    def _hold(self, count: int) -> bool:
        """Count received bytes; False where that is more than the server holds at one time."""
        self._bytes_held += count
        return self._bytes_held <= self._limits.bytes_at_once

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not _HOST.fullmatch(host) or int(host.rpartition(":")[2] if _PORT.search(host) else 0) > 65535:
            raise Refused(
                421, f"a Host header names a host, got {host[:100]!a}; send the name of this server"
            )
        if not self._access.knows(host):
            raise Refused(
                421,
                f"this server answers to {', '.join(sorted(self._access.hosts or ()))}, the request's Host header says "
                f"{host[:100]!r}; use one of these names, or start the server with --trust-host",
            )
        self._check_origin(headers, host)
        if scope["path"] != "/healthz" and not self._access.admits(headers.get("authorization", "")):
            raise Refused(
                401,
                "a valid key is required; send the header Authorization: Bearer KEY",
                code="invalid_api_key",
            )
        if scope["path"] != "/healthz" and scope.get("state", {}).get("crowded"):
            raise Refused(503, "the server has too many connections; try again in 1 s")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._limits.body_bytes:
            raise _too_large(self._limits)

    def _without_strange_proxies(self, scope: Scope) -> Scope:
        """The request without what it says of a proxy in front, unless it names a trusted host.

        Gradio makes the page's addresses of these headers, and anybody can send them.
        """
        headers = Headers(scope=scope)
        trusted = {
            name: _host_name(headers[name]) in self._access.origins
            for name in ("host", "x-forwarded-host")
            if name in headers
        }
        kept = {b"x-forwarded-host"} if trusted.get("x-forwarded-host") else set()
        if any(trusted.values()):
            kept.add(b"x-forwarded-proto")
        named = [(k, v) for k, v in scope["headers"] if not k.startswith(_PROXY_HEADERS) or k in kept]
        return {**scope, "headers": named}

    def _check_origin(self, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        if origin is None:
            return
        try:
            origin_host = urlsplit(origin).netloc
        except ValueError:
            origin_host = ""
        if origin_host.lower() == host.lower():
            return
        if _host_name(origin_host) in self._access.origins:
            return
        raise Refused(
            403,
            f"pages of other origins may not use this server, got the origin {origin[:100]!r}; ask without a browser "
            "page, or add it with --trust-host",
        )


def _too_large(limits: UploadLimits) -> Refused:
    return Refused(
        413,
        f"a request has at most {limits.body_bytes} bytes (a picture {limits.picture_bytes}), this one has more; "
        "send a smaller picture",
    )


def _is_data(path: str) -> bool:
    return path.startswith(("/v1/", "/api/")) or path in ("/healthz", "/metrics", "/openapi.json")


def _with_headers(send: Send, policy: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"
            headers["X-Frame-Options"] = "DENY"
            headers["Content-Security-Policy"] = policy
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            if policy is _DATA_POLICY:
                headers.setdefault("Cache-Control", "no-store")
            # Gradio would allow other origins to read.
            for name in [n for n in headers if n.lower().startswith("access-control-")]:
                del headers[name]
        await send(message)

    return sending


class _Body:
    """A request's body on its way in, and the response on its way out."""

    def __init__(
        self, receive: Receive, send: Send, limits: UploadLimits, hold: Callable[[int], bool]
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._hold = hold
        self.bytes = 0
        self._whole = False
        self._deadline: float | None = None
        self.started = False
        self.refused: Refused | None = None

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._limits.body_seconds
            self._refuse(
                Refused(408, f"a request must arrive within {seconds:g} s, this one did not; send it again")
            )
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.bytes += count
            self._whole = not message.get("more_body", False)
            if not self._hold(count):
                self._refuse(Refused(429, "the server's memory for requests is full; try again in 1 s"))
            if self.bytes > self._limits.body_bytes:
                self._refuse(_too_large(self._limits))
        return message

    def _refuse(self, refused: Refused) -> NoReturn:
        self.refused = refused
        raise _BodyRefused

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.started:
            return  # the application's response to an aborted body; the middleware sends its own
        self.started = True
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                await self._send(message)
        except TimeoutError:
            raise _ClientStuck from None
