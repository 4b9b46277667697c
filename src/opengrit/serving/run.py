"""Runs the server: binds a port, gives its address, and lets answers in progress finish when it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from opengrit.core.errors import RecipeError
from opengrit.serving.connections import (
    Acceptor,
    BoundedProtocol,
    ConnectionLimits,
    check_times,
    connection_limit,
    descriptors_left,
)
from opengrit.serving.engine import cancel_all
from opengrit.serving.log_limit import limit_logs
from opengrit.serving.metrics import Metrics

_POLL_SECONDS = 0.05
_AFTER_GRACE_SECONDS = (
    1.5  # for what a stop does behind the grace time; then the process ends whatever is running
)


class Server(uvicorn.Server):
    """uvicorn with bounds on its connections, whose stop waits for answers only, and for no longer than the grace time.

    An open page holds a connection for as long as it is open, and would use up the grace time of every stop.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        metrics: Metrics,
        limits: ConnectionLimits,
        *,
        grace_seconds: float,
        ready: Callable[[], None] | None = None,
        end_now: Callable[[int], None] = os._exit,
    ) -> None:
        """`ready` is called when the server takes requests, `end_now` with the exit code when a stop must not wait."""
        super().__init__(config)
        self._metrics = metrics
        self._limits = limits
        self._grace_seconds = grace_seconds
        self._ready = ready
        self._end_now = end_now
        self._accepting: list[asyncio.Task[None]] = []
        self.stopping = False  # a signal came

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but connections are accepted within the limits."""
        await super().startup([])
        loop = asyncio.get_running_loop()

        def make_protocol() -> BoundedProtocol:
            return BoundedProtocol(
                self.config, self.server_state, self.lifespan.state, loop, limits=self._limits
            )

        most = self._limits.connections or connection_limit(descriptors_left())
        acceptor = Acceptor(make_protocol, self.server_state.connections, limit=most)  # type: ignore[arg-type]
        for listening in sockets or ():
            listening.listen(self.config.backlog)
            listening.setblocking(False)
            self._accepting.append(asyncio.create_task(acceptor.accept(listening)))
        if self.started and self._ready is not None:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second; closes the connections whose time is up."""
        check_times(self.server_state.connections, asyncio.get_running_loop().time())  # type: ignore[arg-type]
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal gives answers the grace time, and then ends the process; a second one ends it at once."""
        if self.stopping:
            self._end_now(128 + sig)
        self.stopping = True
        ending = threading.Timer(self._grace_seconds + _AFTER_GRACE_SECONDS, self._end_now, args=(0,))
        ending.daemon = True
        ending.start()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, until nobody waits for an answer."""
        self._metrics.stopping_since = time.monotonic()
        await cancel_all(*self._accepting)
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
            f"--host and --port must name a free address of this machine, {host}:{port} is not ({error.strerror}); "
            "choose another port (0 takes any free one)"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The URL a browser on this machine reaches the socket at."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def server(
    app: FastAPI,
    *,
    grace_seconds: float = 10.0,
    limits: ConnectionLimits | None = None,
    ready: Callable[[], None] | None = None,
    end_now: Callable[[int], None] = os._exit,
) -> Server:
    """The server of an application that `build_app` made; `run(sockets=[...])` runs it."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=grace_seconds,  # type: ignore[arg-type]  # waits a fraction of a second too
    )
    return Server(
        config,
        app.state.metrics,
        limits or app.state.connection_limits,
        grace_seconds=grace_seconds,
        ready=ready,
        end_now=end_now,
    )


def run_until_stopped(
    app: FastAPI,
    listening: socket.socket,
    *,
    grace_seconds: float,
    ready: Callable[[], None],
    clean_up: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM; then take no more requests, and give the answers in progress the grace time.

    The process ends within the grace time and two seconds, whatever is running, and at once on a second signal; `clean_up` is
    called before it is ended so.
    """

    def end_now(code: int) -> None:
        app.state.decoders.kill()
        clean_up()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    # uvicorn raises a signal once more when it is done; by default that would end the process before it has cleaned up.
    signal.signal(signal.SIGTERM, _exit)
    serving = server(app, grace_seconds=grace_seconds, ready=ready, end_now=end_now)
    limit_logs()
    try:
        serving.run(sockets=[listening])
    except (KeyboardInterrupt, SystemExit):
        if not serving.stopping:
            raise
    finally:
        listening.close()
    if (
        serving.stopping
    ):  # taking a process with a model apart takes seconds, and nothing of it is needed any more
        end_now(0)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
