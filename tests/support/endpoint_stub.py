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
    """What the server answers. `status` other than 200 is an error; `hold` is waited for after the first piece.

    `usage` are the tokens of prompt and completion, None where it counts none. `stop_reason` is vLLM's: left out where it
    is not given.
    """

    text: str = ""
    finish: str | None = "stop"
    status: int = 200
    hold: threading.Event | None = None
    usage: tuple[int, int] | None = (7, 3)
    stop_reason: object = ...

    @property
    def ending(self) -> dict[str, object]:
        """How a choice says that it ended."""
        said: dict[str, object] = {"finish_reason": self.finish}
        return said if self.stop_reason is ... else said | {"stop_reason": self.stop_reason}

    @property
    def counts(self) -> dict[str, object]:
        """The token counts as the protocol has them."""
        if self.usage is None:
            return {}
        prompt, completion = self.usage
        return {
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
        }


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
                self._stream(said, with_usage=bool((body.get("stream_options") or {}).get("include_usage")))
            else:
                message = {"role": "assistant", "content": said.text}
                choice = {"index": 0, "message": message} | said.ending
                self._send(200, {"id": "1", "object": "chat.completion", "choices": [choice]} | said.counts)

        def _stream(self, said: Said, *, with_usage: bool) -> None:
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
                self._event({"index": 0, "delta": {}} | said.ending)
                if with_usage and said.counts:
                    self._chunk({"choices": []} | said.counts)
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                stub.broken.set()

        def _event(self, choice: dict[str, Any]) -> None:
            self._chunk({"choices": [choice]})

        def _chunk(self, value: dict[str, Any]) -> None:
            chunk = {"id": "1", "object": "chat.completion.chunk"} | value
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
