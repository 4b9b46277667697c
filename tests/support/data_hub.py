"""A hub on the loopback that has data sets, as `datasets` and `huggingface_hub` ask for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class _Handler(BaseHTTPRequestHandler):
    files: Mapping[str, Mapping[str, bytes]]  # of each data set, by path

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/datasets/"):
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            content = self.files.get(name, {}).get(rest.partition("/")[2])
            return self._missing("EntryNotFound") if content is None else self._say(content)
        owner, _, rest = path.removeprefix("/api/datasets/").partition("/")
        base, _, action = rest.partition("/")
        name = f"{owner}/{base}"
        if name not in self.files:
            return self._missing("RepoNotFound")
        if action.startswith("tree/"):
            folder = action.split("/", 2)[2] + "/" if action.count("/") > 1 else ""
            return self._json(self._listing(name, folder, everything="recursive=true" in self.path.lower()))
        if action and not action.startswith("revision/"):
            return self._missing("EntryNotFound")
        siblings = [{"rfilename": file} for file in self.files[name]]
        self._json(
            {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = "/".join(self.path.removeprefix("/api/datasets/").split("/")[:2])
        if "/paths-info/" not in self.path or name not in self.files:
            return self._missing("RepoNotFound")
        wanted = json.loads(body)["paths"]
        self._json([self._entry(name, file) for file in wanted if file in self.files[name]])

    def _listing(self, name: str, folder: str, *, everything: bool) -> list[dict[str, object]]:
        inside = [file for file in self.files[name] if file.startswith(folder)]
        folders = {
            folder + file.removeprefix(folder).split("/")[0]
            for file in inside
            if "/" in file.removeprefix(folder)
        }
        found: list[dict[str, object]] = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
        ]
        return found + [
            self._entry(name, file) for file in inside if everything or "/" not in file.removeprefix(folder)
        ]

    def _entry(self, name: str, file: str) -> dict[str, object]:
        content = self.files[name][file]
        return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _json(self, value: object) -> None:
        self._say(json.dumps(value).encode(), kind="application/json")

    def _missing(self, code: str) -> None:
        self._say(b"{}", status=404, **{"X-Error-Code": code})

    def _say(
        self, content: bytes, *, status: int = 200, kind: str = "application/octet-stream", **headers: str
    ) -> None:
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.send_response(status)
        known = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "ETag": etag,
            "X-Repo-Commit": COMMIT,
        }
        for key, text in {**known, **headers}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def data_hub(files: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """The address of a hub with these data sets, each its files by path, for the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
