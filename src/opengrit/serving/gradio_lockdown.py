"""The Gradio lock-down: only the routes that the page itself uses are open."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JOIN = "/gradio_api/queue/join"
_MAX_JOIN_BYTES = 64 * 1024

# Gradio's other routes (uploads, proxies, files, an API of its own) are closed: some fetch addresses that a caller names.
_OPEN_ROUTES = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/gradio_api/startup-events",
    _JOIN,
    "/gradio_api/queue/data",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)
_OPEN_FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")


class GradioLockdown:
    """Middleware that passes on what the page itself asks of Gradio; everything else is not found.

    Gradio looks for files in whatever it receives and fetches those named by an address. The page sends texts and lists
    of texts only: anything else is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path not in _OPEN_ROUTES and not path.startswith(_OPEN_FOLDERS):
            await JSONResponse({"detail": "Not Found"}, status_code=404)(scope, receive, send)
            return
        if path != _JOIN:
            await self._app(scope, receive, send)
            return
        content = await read_body(Request(scope, receive), _MAX_JOIN_BYTES)
        if content is None or not _is_text(content):
            await JSONResponse({"error": "The page sends text only."}, status_code=400)(scope, receive, send)
            return
        await self._app(scope, _replayed(content, receive), send)


def _is_text(content: bytes) -> bool:
    """Whether this is the JSON of an event whose data are texts, lists of texts, or nothing."""
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict) or event.get("event_data") is not None:
        return False
    data = event.get("data", [])
    if not isinstance(data, list):
        return False
    texts = [text for item in data for text in (item if isinstance(item, list) else [item])]
    return all(text is None or isinstance(text, str) for text in texts)


def _replayed(content: bytes, receive: Receive) -> Receive:
    """The messages of a request whose body has been read already."""
    first = [{"type": "http.request", "body": content, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def read_body(request: Request, max_bytes: int) -> bytes | None:
    """The request's body, or None as soon as it is longer than allowed."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            return None
    return bytes(content)
