"""A hub on the loopback that takes a new repository and one commit with large files, as `huggingface_hub` sends them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    """What was uploaded: whether others see it, and each file's content."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    message: str = ""


@dataclass
class Hub:
    """The repositories by name, contents of large files by SHA-256, and what to refuse."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    refuse_commit: int | None = None
    asked: list[str] = field(default_factory=list)  # each request's method and path


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self.hub.asked.append(f"GET {self.path}")
        name = self.path.removeprefix("/api/models/")
        found = self.hub.repositories.get(name)
        if not self._known() or found is None:
            return self._say(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
        self._say(200, {"id": name, "private": found.private, "siblings": []})

    def do_PUT(self) -> None:
        """The content of a large file; its address is the permission."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != digest:
            return self._say(400, {"error": "another content"})
        self.hub.stored[digest] = content
        self._say(200, {})

    def do_POST(self) -> None:
        self.hub.asked.append(f"POST {self.path}")
        body = self._body()
        if not self._known():
            return self._say(401, {"error": "Invalid username or password."})
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":  # of the card's head
            return self._say(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/storage/{one['oid']}"}}}
                for one in wanted
            ]
            return self._say(200, {"transfer": "basic", "objects": objects})
        name, _, action = path.removeprefix("/api/models/").removesuffix("/main").rpartition("/")
        if action == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._say(200, {"files": files})
        if action == "commit":
            return self._commit(self.hub.repositories[name], body, name)
        self._say(404, {"error": self.path})

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "somebody-else":
            return self._say(
                403, {"error": "You don't have the rights to create a model under this namespace"}
            )
        self.hub.repositories[name] = Repository(private=asked["visibility"] == "private")
        self._say(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, repository: Repository, body: bytes, name: str) -> None:
        if self.hub.refuse_commit is not None:
            return self._say(self.hub.refuse_commit, {"error": "no room left"})
        for line in body.splitlines():
            what = json.loads(line)
            match what["key"], what["value"]:
                case "header", value:
                    repository.message = value["summary"]
                case "file", value:
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile", value:
                    repository.files[value["path"]] = self.hub.stored[value["oid"]]
        self._say(
            200, {"commitUrl": f"{self.hub.url}/{name}/commit/abc", "commitOid": "abc", "success": True}
        )

    def _known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _say(self, status: int, value: dict, **headers: str) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_running() -> Iterator[Hub]:
    """The hub, for the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
