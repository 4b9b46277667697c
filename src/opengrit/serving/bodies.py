"""Reads bodies within bounds, away from the event loop: JSON, forms, and pictures in base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from opengrit.serving.security import Refused, UploadLimits, bad_parameter

_CHUNK_BYTES = 64 * 1024
_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{1,70}")  # RFC 2046
_NOT_BASE64 = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PERCENT = ((b"%2b", b"+"), (b"%2f", b"/"), (b"%3d", b"="), (b"%0a", b""), (b"%0d", b""), (b"%20", b""))
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Form:
    """A form: its fields by name (`stop` as a list) and the uploaded file of the field `image`."""

    fields: dict[str, Any]
    image: bytes


class BodyReader:
    """Reads and parses bodies, one at a time in a thread of its own, so that the event loop can do other things."""

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def json(self, request: Request, read: Callable[[Any], _T]) -> _T:
        """What `read` makes of the JSON value in a request's body. Raises Refused."""
        body = await _body(request)
        return await self.run(lambda: read(read_json(body, self._limits)))

    async def form(self, request: Request) -> Form:
        """The form in a request's body. Raises Refused."""
        body, kind = await _body(request), request.headers.get("content-type", "")
        return await self.run(lambda: asyncio.run(_read_form(body, kind)))

    async def run(self, work: Callable[[], _T]) -> _T:
        """The result of some work on a body, in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def _body(request: Request) -> bytearray:
    """The whole body, which nobody else keeps."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
    return content


# -- JSON -------------------------------------------------------------------------------------------------------------


def read_json(body: bytes | bytearray, limits: UploadLimits) -> Any:
    """The JSON value in a body: UTF-8, no NaN, and small but for its texts. Raises Refused.

    What a value costs to build is bounded before it is built, by counting bytes.
    """
    values = sum(body.count(sign) for sign in (b",", b"[", b"{"))
    if values > limits.json_values:
        raise Refused(
            400,
            f"a JSON body has at most {limits.json_values} commas and opening brackets here, this one has {values}; "
            "send only the question and the picture",
        )
    escapes = body.count(b"\\")
    if escapes > limits.json_escapes:
        raise Refused(
            400,
            f"a JSON body has at most {limits.json_escapes} backslashes here, this one has {escapes}; send the picture "
            "as plain base64",
        )
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Refused(
            400, f"a body is JSON in UTF-8, this one is not ({str(error)[:200]}); correct it"
        ) from None
    _check_depth(value, limits.json_depth)
    return value


def _check_depth(value: Any, most: int) -> None:
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Refused(400, f"JSON is nested at most {most} deep here, this is deeper; flatten it")


# -- forms ------------------------------------------------------------------------------------------------------------


class _Parser(MultiPartParser):
    spool_max_size = 2**62  # in memory: nothing that was sent is kept on disk


async def _read_form(body: bytearray, content_type: str) -> Form:
    """The form in a body, as multipart/form-data. Texts are UTF-8, whatever the request says."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise Refused(
            400,
            "a form's Content-Type names its boundary, of 1 to 70 letters, digits and signs, this one does not; "
            "let your HTTP library write the header",
        )
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary.decode()}"'})
    parser = _Parser(
        headers, _chunks(body), max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, f"a form must be complete: {error.message[:200]}; send it again") from None
    upload = form.get("image")
    if not isinstance(upload, UploadFile):
        raise bad_parameter(
            "image", "a form needs the picture's file in the field image, this one does not have it"
        )
    fields: dict[str, Any] = {"image": ""}
    for name in form:
        if name == "stop":
            fields[name] = form.getlist(name)
        elif name != "image":
            fields[name] = form[name]
    return Form(fields, await upload.read())


async def _chunks(body: bytearray) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _CHUNK_BYTES):
        yield bytes(body[start : start + _CHUNK_BYTES])


# -- pictures in texts ------------------------------------------------------------------------------------------------


def decode_base64(text: str, *, param: str) -> bytes:
    """The bytes of base64 text: with or without line ends and padding, url-safe and percent-encoded too. Raises Refused."""
    try:
        content = text.encode("ascii")
        if b"%" in content:
            for code, sign in _PERCENT:
                content = content.replace(code, sign).replace(code.upper(), sign)
        content = content.translate(_URL_SAFE, _NOT_BASE64).rstrip(b"=")
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise bad_parameter(
            param, "a picture must be base64, this text is not; encode the file's bytes"
        ) from None


def decode_data_uri(uri: str, *, param: str) -> bytes:
    """The bytes in a `data:image/...;base64,` URI. Raises Refused."""
    comma = uri.find(",", 0, 1000)
    head = uri[: comma if comma >= 0 else 60]
    media, *options = head[len("data:") :].strip().lower().split(";")
    if comma < 0 or "base64" not in [o.strip() for o in options]:
        raise bad_parameter(
            param, f"a data URI of a picture reads data:image/png;base64,..., got {head[:60]!r}; write it so"
        )
    if media and not media.startswith("image/") and media != "application/octet-stream":
        raise bad_parameter(param, f"a data URI must be a picture, got {media[:60]!r}; send a picture")
    return decode_base64(uri[comma + 1 :], param=param)
