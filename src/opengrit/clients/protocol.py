"""What a server sent, read strictly: replies, pieces of a stream, and the reasons of failures."""

from __future__ import annotations

import json
import math
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from opengrit.clients.settings import Reply
from opengrit.core.escaping import shortened, without_surrogates
from opengrit.core.http import retry_after_seconds

LARGEST_REPLY_BYTES = 8 << 20
CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English, where a server does not count
TOKENS_PER_PICTURE = 1000
_UNSAID = object()
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429})  # and every 5xx
_REASONING = ("reasoning", "thinking")  # parts of a message that are no part of its answer
_DECLINED = frozenset({400, 413, 422})  # a content filter, a text that is too long

# What the client and the network raise. RuntimeError and TypeError are not among them: those are our mistakes.
EXPECTED = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError)


@dataclass(eq=False)
class Failed(Exception):
    """One request that gave no reply: whether to send it again, and whether it is what the server minds."""

    reason: str
    again: bool = field(default=True, kw_only=True)
    declined: bool = field(default=False, kw_only=True)
    after_seconds: float | None = field(default=None, kw_only=True)
    status: int | None = field(default=None, kw_only=True)  # of HTTP, where that is what failed


def estimate_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens a conversation has: four characters each, and a thousand for a picture."""
    characters, pictures = 0, 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
            continue
        for part in content or ():
            if part.get("type") == "text":
                characters += len(part.get("text", ""))
            else:
                pictures += 1
    return math.ceil(characters / CHARACTERS_PER_TOKEN) + 4 * len(messages) + TOKENS_PER_PICTURE * pictures


async def read(pieces: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > LARGEST_REPLY_BYTES:
            raise Failed(
                f"the reply is longer than {LARGEST_REPLY_BYTES >> 20} MiB", again=False, declined=True
            )
    return bytes(body)


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Failed("the reply is not UTF-8") from None
    except (ValueError, RecursionError):
        start = body[:60].decode("utf-8", "replace")
        raise Failed(f"the reply is not JSON: {start!r}" if body else "the reply is empty") from None
    if not isinstance(value, dict):
        raise Failed("the reply is not a JSON object")
    if value.get("error"):
        raise Failed(f"the server says: {_error_text(value['error'])}")
    return value


def read_models(body: bytes) -> tuple[str, ...]:
    listed = _read_json(body).get("data")
    if not isinstance(listed, list):
        raise Failed("the reply lists no models")
    return tuple(str(item["id"]) for item in listed if isinstance(item, dict) and "id" in item)


def read_reply(body: bytes, messages: Sequence[Mapping[str, Any]]) -> tuple[Reply, bool]:
    """The reply in a body, and whether the server counted its tokens."""
    value = _read_json(body)
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failed("the reply has no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise Failed("the reply has no message")
    finish = choices[0].get("finish_reason")
    text = _content(message.get("content"))
    text = None if text is None else without_surrogates(text)
    if text is None:
        refusal = message.get("refusal")
        if isinstance(refusal, str):
            raise Failed(f"refused: {refusal}", again=False, declined=True)
        raise Failed("the reply has no text", again=False, declined=True)
    tokens = _usage(value.get("usage"))
    prompt, completion = tokens or (estimate_tokens(messages), math.ceil(len(text) / CHARACTERS_PER_TOKEN))
    counted, reason = tokens is not None, _stop_reason(choices[0])
    named = finish if isinstance(finish, str) else None
    return Reply(text, named, prompt, completion, counted, reason), counted


def _stop_reason(choice: dict[str, Any]) -> str | None:
    """The stop string that ended a text; empty where the server (vLLM) names none or a token, None where it says nothing."""
    reason = choice.get("stop_reason", _UNSAID)
    return None if reason is _UNSAID else reason if isinstance(reason, str) else ""


def _content(content: Any) -> str | None:
    """The text of a message: a string, or the text parts of a list; None where there is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [
        part.get("text") for part in content if isinstance(part, dict) and part.get("type") not in _REASONING
    ]
    texts = [text for text in parts if isinstance(text, str)]
    return "".join(texts) if texts else None


def _usage(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    prompt, completion = (count if type(count) is int and 0 <= count < 2**53 else None for count in counts)
    return None if prompt is None or completion is None else (prompt, completion)


class StreamedReply:
    """The part of a streamed answer that has arrived. Chunks come unchecked, so each is read as plain data."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._half = ""  # of a character whose other half the next chunk may bring
        self._finish: str | None = None
        self._stop_reason: str | None = None
        self._tokens: tuple[int, int] | None = None

    def add(self, chunk: Any) -> str:
        """The new text of a chunk, possibly none."""
        if not isinstance(chunk, openai.BaseModel):
            raise Failed("the stream does not follow the protocol")
        value = chunk.to_dict(mode="python", warnings=False)
        if value.get("error"):
            raise Failed(f"the server says: {_error_text(value['error'])}")
        self._tokens = _usage(value.get("usage")) or self._tokens
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        if isinstance(finish := choice.get("finish_reason"), str):
            self._finish = finish
            self._stop_reason = _stop_reason(choice)
        delta = choice.get("delta")
        piece = _content(delta.get("content")) if isinstance(delta, dict) else None
        if not piece:
            return ""
        piece = self._half + piece
        self._half = piece[-1] if "\ud800" <= piece[-1] <= "\udbff" else ""
        piece = without_surrogates(piece.removesuffix(self._half))
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > LARGEST_REPLY_BYTES:
            raise Failed(f"the reply is longer than {LARGEST_REPLY_BYTES >> 20} MiB")
        return piece

    def reply(self, messages: Sequence[Mapping[str, Any]]) -> tuple[Reply, bool]:
        """The whole answer, and whether the server counted its tokens. A stream that names no end is a failure."""
        if self._finish is None:
            raise Failed("the stream ended early")
        text = "".join(self._pieces) + without_surrogates(self._half)
        prompt, completion = self._tokens or (
            estimate_tokens(messages),
            math.ceil(len(text) / CHARACTERS_PER_TOKEN),
        )
        counted = self._tokens is not None
        return Reply(text, self._finish, prompt, completion, counted, self._stop_reason), counted


def explained(error: BaseException) -> Failed:
    """What an error of the client means: the reason, and whether another try can help."""
    if isinstance(error, openai.APIStatusError):
        return _status_explained(error)
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            trusted = not isinstance(cause, ssl.SSLCertVerificationError)
            return Failed(
                f"TLS: {getattr(cause, 'verify_message', None) or cause.reason or cause}", again=trusted
            )
        if isinstance(cause, socket.gaierror):
            return Failed(f"the server's name is not known: {cause.strerror}")
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
        return Failed(f"the server says: {error.message}")
    if isinstance(error, UnicodeEncodeError):
        return Failed("the question is not valid text and cannot be sent", again=False, declined=True)
    if isinstance(error, ValueError):
        return Failed("the stream does not follow the protocol")
    root = next((cause for cause in causes if isinstance(cause, ConnectionError)), causes[-1])
    return Failed(f"connection: {root or type(root).__name__}")


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


def _status_explained(error: openai.APIStatusError) -> Failed:
    status = error.status_code
    if 300 <= status < 400:
        target = _address(error.response.headers.get("location", ""))
        return Failed(
            f"HTTP {status}: a redirect to {target} is not followed; write the final address as the url",
            again=False,
            status=status,
        )
    if status in (401, 403):  # its text may show parts of the key
        return Failed(f"HTTP {status}: the server refuses the key, or has none", again=False, status=status)
    again = (status in _WORTH_ANOTHER_TRY or status >= 500) and error.code != "insufficient_quota"
    declined = status in _DECLINED and error.code != "insufficient_quota"
    after = retry_after_seconds(error.response.headers.get("retry-after")) if again else None
    reason = f"HTTP {status}: {_error_text(error.body)}"
    known = None if error.code == "insufficient_quota" else status
    return Failed(reason, again=again, declined=declined, after_seconds=after, status=known)


def _address(location: str) -> str:
    """The address of a redirect without what may be a secret: user, password, query and fragment."""
    try:
        parts = urlsplit(location)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "another address"
    shown = f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path
    return shortened(shown or "another address", 80)


def _error_text(body: Any) -> str:
    """The message of an error body, whatever form it has."""
    if isinstance(body, dict):
        inner = body.get("message") or body.get("error") or body.get("detail") or body
        return str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    return str(body or "no reason given")
