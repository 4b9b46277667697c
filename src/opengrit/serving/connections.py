"""Connections within bounds: how many there are, and how long a client may take over its request.

uvicorn has no clock over the receipt of a request, and middleware runs when a request's head is there: too late for one
that never is. So the clock is in the protocol, and the sockets are accepted here, where they are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)

_MOST = 512  # connections, where there are descriptors for so many
_SPARE_DESCRIPTORS = 96  # for the model, decoders, an endpoint's connections and files
_CROWD = 32  # connections above the limit, which get a 503 or the health check
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_SECONDS = 0.2
# A body that is silent for so long, or slower than so many bytes a second, may be dropped for another connection.
_SILENT_SECONDS = 0.5
_SLOW_SECONDS, _SLOW_BYTES = 2.0, 2048
# h11 takes some 30 microseconds for a chunk of a body, also where it holds one byte: 250 KB of them would be a second.
_READ_BYTES = 8192  # at a time
_TINY_CHUNK = re.compile(rb"\r\n0*[0-9A-Fa-f]{1,2}(?:;[^\r\n]*)?\r\n")
_MOST_TINY_CHUNKS = 4000


def descriptors_left() -> int | None:
    """How many files and sockets this process may open besides those it has; None where it is not known."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return None
        return limit - len(os.listdir("/dev/fd"))
    except (ImportError, OSError):
        return None


def connection_limit(left: int | None) -> int:
    """How many connections are served at once, so that some descriptors always stay free."""
    return _MOST if left is None else max(8, min(_MOST, left - _SPARE_DESCRIPTORS - _CROWD))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections are served at once, and the seconds a client has: for a request's head, its body, its response.

    `connections` None is what the descriptors of this process allow, at most 512. Seconds for the body are those of
    `UploadLimits`, after which the request is refused; here the connection is closed whatever happened to the request.
    """

    connections: int | None = None
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a clock over the receipt of a request, and over a closed connection's last bytes."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._waiting_since: float | None = None  # for the rest of a request's head
        self._body_since: float | None = None
        self._closing_since: float | None = None
        self._heard = self.loop.time()
        self._bytes_heard = 0
        self._tiny_chunks = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard = self._waiting_since = self.loop.time()
        with contextlib.suppress(AttributeError):  # another event loop's transport has no such bound
            transport.max_size = _READ_BYTES  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        self._bytes_heard += len(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._tiny_chunks += len(_TINY_CHUNK.findall(data))
            if self._tiny_chunks > _MOST_TINY_CHUNKS:
                self.transport.abort()
                return
        super().data_received(data)
        self._keep_time(begun=True)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bytes_heard = len(self.conn.trailing_data[0])
        self._tiny_chunks = 0
        self._keep_time(begun=self._bytes_heard > 0)

    def _keep_time(self, *, begun: bool) -> None:
        """Start or stop the clocks as the request's state asks; `begun` where bytes of the next head are there."""
        state = self.conn.their_state
        if state is h11.IDLE and begun:
            self._waiting_since = self._waiting_since or self._heard
        else:
            self._waiting_since = None
        self._body_since = (self._body_since or self._heard) if state is h11.SEND_BODY else None

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is being answered here, in the loop's time: no whole head came, or the response is over."""
        if self.cycle is None or self.cycle.response_complete:
            return self._waiting_since or self._heard
        return None

    def stalled_seconds(self, now: float) -> float | None:
        """How long a body has been under way whose client is silent or slow; None where it is neither."""
        if self._body_since is None:
            return None
        under_way = now - self._body_since
        slow = under_way > _SLOW_SECONDS and self._bytes_heard < _SLOW_BYTES * under_way
        return under_way if slow or now - self._heard > _SILENT_SECONDS else None

    def check_time(self, now: float) -> None:
        """Close the connection when a clock has run out."""
        limits = self._limits
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > limits.write_seconds:
                self.transport.abort()  # what is left to send is not taken
        elif self._waiting_since is not None and now - self._waiting_since > limits.head_seconds:
            self.drop(408, f"a request's head must arrive within {limits.head_seconds:g} s, this one did not")
        elif self._body_since is not None and now - self._body_since > limits.body_seconds + 1:
            self.transport.abort()

    def drop(self, status: int, problem: str) -> None:
        """Close the connection, with a response where a request was begun and none was sent."""
        if self._bytes_heard and self.conn.our_state is h11.IDLE:
            body = f'{{"error": {{"message": "{problem}", "type": "invalid_request_error", "param": null, "code": null}}}}'
            reason = "Request Timeout" if status == 408 else "Service Unavailable"
            self.transport.write(
                f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def mark_crowded(self) -> None:
        """Have requests here refused with a 503, except for the health check."""
        self.app_state = {**self.app_state, "crowded": True}


class Acceptor:
    """Accepts connections, one after the other, as many as the limits allow; the rest wait in the system's queue.

    Where there are as many as are served, the one that has been idle longest makes room: a connection that has not sent a
    whole head, or keeps its line open for later; failing that one whose body has come to a standstill. Where all of
    them are being answered, a new one gets a 503.
    """

    def __init__(
        self,
        make_protocol: Callable[[], BoundedProtocol],
        connections: Collection[BoundedProtocol],
        *,
        limit: int,
    ) -> None:
        """`connections` are those there are now, as uvicorn keeps them."""
        self._make_protocol = make_protocol
        self._connections = connections
        self._limit = limit

    async def accept(self, listening: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            while len(self._connections) >= self._limit + _CROWD:
                self._make_room(loop.time())
                await asyncio.sleep(0.01)
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor is left, or the client is gone already
                if error.errno in _NO_ROOM:
                    _log.error("no connection can be accepted: %s", error.strerror)
                    self._make_room(loop.time())
                    await asyncio.sleep(_RETRY_SECONDS)
                continue
            if len(self._connections) >= self._limit:
                self._make_room(loop.time())
            crowded = (
                len(self._open_ones()) >= self._limit
            )  # the one that made room may have been one too many itself
            try:
                await loop.connect_accepted_socket(
                    self._make_crowded if crowded else self._make_protocol, connection
                )
            except OSError:
                connection.close()

    def _make_crowded(self) -> BoundedProtocol:
        """Marked before it has a socket: a request may be there already, and is answered as soon as it is read."""
        protocol = self._make_protocol()
        protocol.mark_crowded()
        return protocol

    def _open_ones(self) -> list[BoundedProtocol]:
        return [c for c in self._connections if not c.transport.is_closing()]

    def _make_room(self, now: float) -> None:
        """Drop a connection that can be spared, where there is one."""
        open_ones = self._open_ones()
        idle = [(since, c) for c in open_ones if (since := c.idle_since) is not None]
        if idle:
            _, longest = min(idle, key=lambda pair: pair[0])
            longest.drop(503, "the server has too many connections; try again")
            return
        stalled = [(seconds, c) for c in open_ones if (seconds := c.stalled_seconds(now)) is not None]
        if stalled:
            _, longest = max(stalled, key=lambda pair: pair[0])
            longest.transport.abort()


def check_times(connections: Iterable[BoundedProtocol], now: float) -> None:
    """Close the connections whose time is up."""
    for connection in list(connections):
        connection.check_time(now)
