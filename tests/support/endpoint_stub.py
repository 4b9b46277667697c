"""A small OpenAI-like server on the loopback, for tests: it answers from a function and can misbehave."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Request:
    """One request for a completion, as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def text(self) -> str:
        return self.body["messages"][0]["content"][1]["text"]

    @property
    def picture(self) -> Image.Image:
        uri = self.body["messages"][0]["content"][0]["image_url"]["url"]
        head, _, data = uri.partition(",")
        assert head == "data:image/png;base64"
        return Image.open(io.BytesIO(base64.b64decode(data)))


@dataclass
class Said:
    """What the server answers. `status` other than 200 is an error; `hold` is waited for after the first piece."""

    text: str = ""
    finish: str | None = "stop"
    status: int = 200
    hold: threading.Event | None = None


@dataclass
class Stub:
    """A running server: its address and the requests it got."""

    url: str
    requests: list[Request] = field(default_factory=list)
    broken: threading.Event = field(default_factory=threading.Event)  # set when a client went away midway


@contextmanager
def endpoint_stub(answer: Callable[[Request], Said], *, models: tuple[str, ...] = ("toy",)) -> Iterator[Stub]:
    """A server that answers each request for a completion with `answer`, and lists `models`."""
    stub = Stub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = Request(body, dict(self.headers))
            stub.requests.append(request)
            said = answer(request)
            if said.status != 200:
                self._send(said.status, {"error": {"message": said.text}})
            elif body.get("stream"):
                self._stream(said)
            else:
                message = {"role": "assistant", "content": said.text}
                choice = {"index": 0, "message": message, "finish_reason": said.finish}
                usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
                self._send(200, {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

        def _stream(self, said: Said) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            pieces = [said.text[i : i + 5] for i in range(0, len(said.text), 5)]
            try:
                for number, piece in enumerate(pieces):
                    self._event({"index": 0, "delta": {"content": piece}, "finish_reason": None})
                    if number == 0 and said.hold is not None:
                        while not said.hold.wait(0.05):
                            self.wfile.write(b": still there\n\n")
                            self.wfile.flush()
                self._event({"index": 0, "delta": {}, "finish_reason": said.finish})
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                stub.broken.set()

        def _event(self, choice: dict[str, Any]) -> None:
            chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()

        def _send(self, status: int, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
