"""A hub on the loopback that gives files of models and data sets, as `huggingface_hub` asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class DownloadHub:
    """Files by repository ("datasets/owner/name" or "owner/name") and name; every `cut_off` download ends in the middle."""

    files: dict[str, dict[str, bytes]]
    url: str = ""
    cut_off: int = 0
    status: int | None = None  # of every answer
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: DownloadHub

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """The sizes of files: /api/datasets/OWNER/NAME/paths-info/REVISION."""
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._note()
        if self.hub.status is not None:
            return self._say(self.hub.status, b"{}")
        repository = "/".join(unquote(urlsplit(self.path).path).removeprefix("/api/").split("/")[:3])
        try:
            names = json.loads(sent)["paths"]
        except ValueError:
            names = parse_qs(sent.decode())["paths"]
        files = self.hub.files.get(repository)
        if files is None:
            return self._absent("RepoNotFound")
        known = [
            {"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in names if name in files
        ]  # fmt: skip
        self._say(200, json.dumps(known).encode())

    def _answer(self, *, body: bool) -> None:
        self._note()
        if self.hub.status is not None:
            return self._say(self.hub.status, b"{}" if body else b"")
        if self.path.startswith("/api/"):  # lists of files and other things that none of our commands needs
            return self._absent("EntryNotFound")
        repository, _, rest = unquote(urlsplit(self.path).path).strip("/").partition("/resolve/")
        files = self.hub.files.get(repository)
        content = (files or {}).get(rest.partition("/")[2])
        if content is None:
            return self._absent("RepoNotFound" if files is None else "EntryNotFound")
        start = 0
        if body and (wanted := self.headers.get("Range")) is not None:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        if self.hub.cut_off and len(content) > 1:
            self.hub.cut_off -= 1
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def _note(self) -> None:
        self.hub.asked.append((self.command, self.path, self.headers.get("Range")))

    def _absent(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def download_hub(files: dict[str, dict[str, bytes]]) -> Iterator[DownloadHub]:
    """The hub, for the block."""
    hub = DownloadHub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_OfHub", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
