"""The Gradio lock-down: only the routes that draw the page are open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.serving.security import error_response, not_found

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Gradio's other routes are closed: its queue, uploads, proxies, files and an API of its own. Some fetch addresses that a caller
# names, some keep what is sent until somebody asks for it. What the page asks for has routes of ours (`page_backend.py`).
_OPEN_ROUTES = ("/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/startup-events")
_OPEN_FOLDERS = ("/assets/", "/static/")


class GradioLockdown:
    """Middleware that passes on what draws the page, to be read only; everything else is not found."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if scope["method"] in ("GET", "HEAD") and (path in _OPEN_ROUTES or path.startswith(_OPEN_FOLDERS)):
            await self._app(scope, receive, send)
            return
        await error_response(not_found())(scope, receive, send)
