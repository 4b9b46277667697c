"""Runs the server: binds a port, gives its address, and lets answers in progress finish when it is stopped."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from opengrit.core.errors import RecipeError
from opengrit.serving.metrics import Metrics

_POLL_SECONDS = 0.05


class Server(uvicorn.Server):
    """uvicorn, but a stop does not wait for idle connections.

    An open page holds a connection for as long as it is open, and would use up the grace time of every stop.
    """

    def __init__(
        self, config: uvicorn.Config, metrics: Metrics, ready: Callable[[], None] | None = None
    ) -> None:
        """`ready` is called when the server takes requests."""
        super().__init__(config)
        self._metrics = metrics
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, until nobody waits for an answer."""
        dropping = asyncio.create_task(self._drop_idle_connections())
        await super().shutdown(sockets)
        dropping.cancel()

    async def _drop_idle_connections(self) -> None:
        while self._metrics.in_flight or self._metrics.busy():
            await asyncio.sleep(_POLL_SECONDS)
        for task in list(self.server_state.tasks):
            task.cancel()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one. Raises RecipeError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise RecipeError(
            f"--host and --port name a free address of this machine, {host}:{port} is none ({error.strerror}); "
            "choose another port (0 takes any free one)"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The URL a browser on this machine reaches the socket at."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def server(app: FastAPI, *, grace_seconds: float = 10.0, ready: Callable[[], None] | None = None) -> Server:
    """The server of an application that `build_app` made; `run(sockets=[...])` runs it."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )
    return Server(config, app.state.metrics, ready)


def run_until_stopped(
    app: FastAPI, listening: socket.socket, *, grace_seconds: float, ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; then take no more requests, and give the answers in progress the grace time."""
    # uvicorn raises a signal once more when it is done; by default that would end the process before it has cleaned up.
    signal.signal(signal.SIGTERM, _exit)
    try:
        server(app, grace_seconds=grace_seconds, ready=ready).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
