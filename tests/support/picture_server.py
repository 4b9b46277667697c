"""A loopback server of files that answers badly in many ways, as it is told."""

from __future__ import annotations

import gzip
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Bad(Enum):
    """What is wrong with an answer."""

    NOTHING = "the file"
    MOVED = "a redirect to another path of this host"
    ABSENT = "404"
    FORBIDDEN = "403"
    BROKEN = "500"
    SLOW_DOWN = "503, with Retry-After"
    BUSY = "429, without"
    LATER = "503, and asks to wait an hour"
    PAGE = "a page, with status 200"
    PAGE_AS_JPEG = "a page that calls itself a picture"
    WRONG_PICTURE = "another picture, of another size"
    TRUNCATED = "half the picture, and its length is half too"
    CUT_OFF = "half the picture, then the connection is closed"
    DRIP = "a byte now and then"
    SILENT = "nothing, for long"
    EMPTY = "no byte"
    GARBAGE = "random bytes"
    PACKED = "gzip that was not asked for"
    PACKED_GARBAGE = "no gzip, called gzip"
    BOMB = "a picture of 60,000 x 60,000 pixels in a few bytes"
    ENDLESS = "more bytes than any picture has"
    ELSEWHERE = "a redirect to another host"
    ROUND = "a redirect to itself"
    FILE = "a redirect to a file of this machine"
    OTHER_RANGE = "206, from another place than was asked"


@dataclass
class PictureServer:
    """`files` by path, each path's answer as `plan` says it; `asked` are the paths and ranges, in order."""

    files: dict[str, bytes]
    plan: Callable[[str, int], Bad] = lambda path, times: Bad.NOTHING
    retry_after: str = "0.1"
    drip_seconds: float = 0.05
    seconds_before: float = 0.0  # each answer
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def _png_bomb() -> bytes:
    """The head of a PNG of 60,000 x 60,000 pixels, and one packed row of it."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(180_001)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    told: PictureServer

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def do_GET(self) -> None:
        told, path, wanted = self.told, self.path, self.headers.get("Range")
        times = sum(1 for asked, _ in told.asked if asked == path)
        told.asked.append((path, wanted))
        told.times.append(time.monotonic())
        time.sleep(told.seconds_before)
        with suppress(ConnectionError):
            content = told.files.get(path)
            if content is None:
                self._send(404, b"", {})
            else:
                self._answer(told.plan(path, times), content, wanted)

    def _answer(self, bad: Bad, content: bytes, wanted: str | None) -> None:
        half = content[: len(content) // 2]
        match bad:
            case Bad.NOTHING:
                self._file(content, wanted)
            case Bad.ABSENT | Bad.FORBIDDEN | Bad.BROKEN | Bad.BUSY:
                status = {Bad.ABSENT: 404, Bad.FORBIDDEN: 403, Bad.BROKEN: 500, Bad.BUSY: 429}[bad]
                self._send(status, b"<Error/>", {"Content-Type": "application/xml"})
            case Bad.SLOW_DOWN | Bad.LATER:
                after = "3600" if bad is Bad.LATER else self.told.retry_after
                self._send(503, b"<Code>SlowDown</Code>", {"Retry-After": after})
            case Bad.PAGE:
                self._send(
                    200, b"<!doctype html><h1>Welcome</h1>", {"Content-Type": "text/html; charset=utf-8"}
                )
            case Bad.PAGE_AS_JPEG:
                self._send(200, b"<!doctype html><h1>Welcome</h1>", {"Content-Type": "image/jpeg"})
            case Bad.WRONG_PICTURE:
                self._send(200, self.told.files["/other"], {"Content-Type": "image/jpeg"})
            case Bad.TRUNCATED:
                self._send(200, half, {"Content-Type": "image/jpeg"})
            case Bad.CUT_OFF:
                self._file(content, wanted, sent=len(content) // 2)
            case Bad.DRIP:
                self._start(200, len(content), {"Content-Type": "image/jpeg"})
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(self.told.drip_seconds)
            case Bad.SILENT:
                time.sleep(1.0)
                self.close_connection = True
            case Bad.EMPTY:
                self._send(200, b"", {"Content-Type": "image/jpeg"})
            case Bad.GARBAGE:
                self._send(200, sha256(content).digest() * 40, {"Content-Type": "image/jpeg"})
            case Bad.PACKED:
                self._send(200, gzip.compress(content), {"Content-Encoding": "gzip"})
            case Bad.PACKED_GARBAGE:
                self._send(200, b"not gzip at all", {"Content-Encoding": "gzip"})
            case Bad.BOMB:
                self._send(200, _png_bomb(), {"Content-Type": "image/png"})
            case Bad.ENDLESS:
                self._start(200, None, {"Content-Type": "image/jpeg", "Connection": "close"})
                for _ in range(200):
                    self.wfile.write(b"\xff" * 65536)
                self.close_connection = True
            case Bad.ELSEWHERE:
                self._send(302, b"", {"Location": "http://localhost.example.org/a.jpg"})
            case Bad.MOVED:
                self._send(301, b"", {"Location": f"/moved{self.path}"})
            case Bad.ROUND:
                self._send(302, b"", {"Location": self.path})
            case Bad.FILE:
                self._send(302, b"", {"Location": "file:///etc/hostname"})
            case Bad.OTHER_RANGE:
                self._send(206, half, {"Content-Range": f"bytes 7-{6 + len(half)}/{len(content)}"})

    def _file(self, content: bytes, wanted: str | None, *, sent: int | None = None) -> None:
        tag = f'"{sha256(content).hexdigest()[:16]}"'
        start = 0
        if wanted is not None and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        more = {"ETag": tag, "Content-Type": "image/jpeg"}
        if start:
            more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._start(206 if start else 200, len(content) - start, more)
        self.wfile.write(content[start : len(content) if sent is None else max(start, sent)])
        if sent is not None:
            self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._start(status, len(body), headers)
        self.wfile.write(body)

    def _start(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def picture_server(files: dict[str, bytes]) -> Iterator[PictureServer]:
    """A server of these files on this machine, while the block runs."""
    told = PictureServer(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Told", (_Handler,), {"told": told}))
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
