"""A process that opens strangers' pictures: it has limits on memory and on CPU time, and can be ended at any moment.

`python -m opengrit.serving.decoder_process` reads jobs from its standard input and writes results to its standard
output; `decoders.py` starts it. Neither torch nor numpy is imported here, so that it starts quickly.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, BinaryIO

from PIL import Image

from opengrit.core.drawing import draw_boxes
from opengrit.core.errors import ImageError
from opengrit.core.images import Limits, open_any

_HEAD = struct.Struct(">IQ")  # bytes of the JSON that follows, and of the content behind it
_PREVIEW_SIDE = 1280  # pixels; a larger picture is only shown smaller
_PREVIEW_QUALITY = 88
_STRIP_PIXELS = 1_000_000  # written at a time, so that no second copy of a large picture is made
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # the next marker behind a scan's own bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """What a picture may cost: pixels that are opened in this process, JPEG scans, scans x pixels, seconds of CPU."""

    pixels_here: int
    scans: int
    scanned_pixels: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box to draw: left, top, right, bottom in pixels."""

    number: int
    label: str | None
    pixels: tuple[float, float, float, float]


class _Larger(Exception):
    """The picture has more pixels than are opened here, within the limits."""


def write_message(stream: BinaryIO, head: dict[str, Any], content: bytes = b"") -> None:
    """Write one message: JSON and bytes."""
    encoded = json.dumps(head).encode()
    stream.write(_HEAD.pack(len(encoded), len(content)) + encoded)
    stream.write(content)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytearray]:
    """The next message. Raises EOFError where the other side is gone."""
    length, size = _HEAD.unpack(_read(stream, _HEAD.size))
    return json.loads(_read(stream, length)), _read(stream, size)


def _read(stream: BinaryIO, size: int) -> bytearray:
    content = bytearray(size)
    view, place = memoryview(content), 0
    while place < size:
        count = stream.readinto(view[place:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        place += count
    return content


def preview(picture: Image.Image) -> tuple[bytes, str]:
    """A smaller copy of a picture for a page: its bytes and media type. The picture itself is made smaller."""
    small = max(picture.size) <= _PREVIEW_SIDE // 2
    picture.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, **({"format": "PNG"} if small else {"format": "JPEG", "quality": _PREVIEW_QUALITY}))
    return content.getvalue(), "image/png" if small else "image/jpeg"


def num_scans(content: bytes, *, most: int) -> int:
    """How many scans a JPEG file has, counted up to one more than `most`; 0 for another file."""
    if content[:2] != b"\xff\xd8":
        return 0
    place, scans = 2, 0
    while scans <= most and (found := _AFTER_SCAN.search(content, place)) is not None:
        place, marker = found.start(), content[found.start() + 1]
        if marker == 0xD9:  # the end of the picture; a camera's preview may follow
            break
        scans += marker == 0xDA
        alone = marker in (0x01, 0xD8)
        place += 2 if alone else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return scans


def _check_scans(content: bytes, pixels: int, budget: Budget) -> None:
    scans = num_scans(content, most=budget.scans)
    if scans > budget.scans or scans * pixels > budget.scanned_pixels:
        most = min(budget.scans, budget.scanned_pixels // pixels)
        raise ImageError(
            f"a progressive JPEG of {pixels} pixels has at most {most} scans here, this one has "
            f"{'more' if scans > budget.scans else scans}; save it as a baseline JPEG or as PNG"
        )


def _opened(content: bytes, limits: Limits, budget: Budget) -> Image.Image:
    """The picture, upright, RGB. Raises ImageError or _Larger."""
    try:
        with Image.open(io.BytesIO(content), formats=limits.formats) as header:
            pixels = header.width * header.height
    # Whatever is wrong with it, open_any says so in its own words.
    except Exception:
        pixels = 0
    if 0 < pixels <= limits.max_pixels and len(content) <= limits.max_bytes:
        _check_scans(content, pixels, budget)
        if pixels > budget.pixels_here:
            raise _Larger
    return open_any(content, limits=limits)


def _strips(picture: Image.Image) -> Iterator[bytes]:
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        yield picture.crop((0, top, picture.width, min(picture.height, top + rows))).tobytes()


def _answer(job: dict[str, Any], content: bytes, out: BinaryIO) -> None:
    """Do one job and write its result."""
    limits = Limits(**job["limits"] | {"formats": tuple(job["limits"]["formats"])})
    picture = _opened(content, limits, Budget(**job["budget"]))
    width, height = picture.size
    match job["do"]:
        case "open":
            _end_clock()  # what is left is to be taken by the other side
            head = json.dumps({"size": [width, height]}).encode()
            out.write(_HEAD.pack(len(head), width * height * 3) + head)
            for strip in _strips(picture):
                out.write(strip)
            out.flush()
        case "preview":
            shown, media_type = preview(picture)
            write_message(out, {"size": [width, height], "media_type": media_type}, shown)
        case "draw":
            boxes = [DrawnBox(number, label, tuple(pixels)) for number, label, pixels in job["boxes"]]
            drawn = io.BytesIO()
            draw_boxes(picture, boxes).save(drawn, format="PNG")
            write_message(out, {"size": [width, height]}, drawn.getvalue())


def serve(jobs: BinaryIO, results: BinaryIO) -> None:
    """Do jobs until there are no more. A result is what was asked for, `{"error": ...}` or `{"larger": true}`."""
    while True:
        try:
            job, content = read_message(jobs)
        except EOFError:
            return
        _start_clock(job["budget"]["cpu_seconds"])
        try:
            _answer(job, bytes(content), results)
        except _Larger:
            write_message(results, {"larger": True})
        except MemoryError:
            write_message(
                results,
                {"error": "this picture needs more memory than the server allows; scale the picture down"},
            )
        except ImageError as error:
            write_message(results, {"error": str(error)})
        # Pillow's readers raise whatever comes to them; a stranger's picture must not end the process for it.
        except Exception as error:
            write_message(
                results,
                {"error": f"a picture must open, this one does not ({type(error).__name__}); save it again"},
            )
        _end_clock()
        del job, content


def _start_clock(cpu_seconds: float) -> None:
    """The kernel ends the process when it has used so much CPU time, in the middle of a C function too."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def _end_clock() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(most_bytes: int) -> None:
    """Let this process have at most so much address space, and write no file (where the system has such limits)."""
    try:
        import resource
    except ImportError:
        return
    limits: list[tuple[Callable[[], int], int]] = [
        (lambda: resource.RLIMIT_AS, most_bytes),
        (lambda: resource.RLIMIT_FSIZE, 0),
        (lambda: resource.RLIMIT_CORE, 0),
    ]
    for kind, most in limits:
        try:
            resource.setrlimit(kind(), (most, most))
        except (AttributeError, OSError, ValueError):
            continue


def as_dict(settings: Limits | Budget) -> dict[str, Any]:
    """The fields of a dataclass with slots, for JSON."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def main() -> None:
    """Serve jobs on standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is not a result
    limit_memory(int(sys.argv[1]))
    Image.init()
    serve(sys.stdin.buffer, results)


if __name__ == "__main__":
    main()
