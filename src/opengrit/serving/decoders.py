"""Decodes strangers' pictures in processes that can be ended: by their CPU time, by a deadline, when the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.drawing import Drawable
from opengrit.core.errors import ImageError
from opengrit.core.images import Limits
from opengrit.serving.decoder_process import Budget, as_dict, read_message, write_message
from opengrit.serving.engine import Busy

# The formats of strangers' pictures. Of a GIF one frame is decoded; one with more is refused, as every animation is.
OPEN_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_QUICK_PIXELS = (
    6_000_000  # a larger picture waits in a queue of its own, so that small ones need not wait for it
)
_SCANNED_AT_MOST = 16  # scans of the largest picture; smaller ones may have more of them
_WALL_SECONDS = 4.0  # for each second of CPU time: the machine may be busy
_START_BYTES = 500 * 2**20  # address space of the process itself
_BYTES_PER_PIXEL = 32  # of the costliest picture: with opacity, laid on white, turned


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture's upright size, and a smaller copy of it for a page."""

    size: Size
    content: bytes
    media_type: str


class _Process:
    """One process; a thread at a time talks to it."""

    def __init__(self, memory_bytes: int) -> None:
        # Its own process group: a signal to the server's group is the server's, which ends this one itself.
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "opengrit.serving.decoder_process", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    def ask(self, job: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytearray]:
        """The result of a job. Raises ImageError where the process ends instead."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            write_message(self._popen.stdin, job, content)  # type: ignore[arg-type]
            return read_message(self._popen.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError):
            self.end()
        if self._popen.returncode == -getattr(signal, "SIGPROF", 0):
            seconds = job["budget"]["cpu_seconds"]
            raise ImageError(
                f"a picture of this size must decode within {seconds:g} s, this one does not; save it as PNG or as a "
                "baseline JPEG"
            )
        raise ImageError("a picture must decode completely, this one crashed its decoder; save it again")

    def kill(self) -> None:
        """End it at once, whatever it does; may be called from another thread than `ask`."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def reap(self) -> None:
        """Wait a moment for the end of a killed process."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(0.5)

    def end(self) -> None:
        """End it, and leave nothing of it behind."""
        self.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _end_all(processes: set[_Process]) -> None:
    for process in list(processes):
        process.kill()


@dataclass(slots=True, eq=False)
class _Lane:
    """At most so many processes at a time, each for pictures of at most so many pixels."""

    count: int
    pixels: int
    slots: asyncio.Semaphore = field(init=False)
    idle: list[_Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.count)


class DecoderPool:
    """Opens pictures within `limits`, in a few processes that are started when the first picture comes.

    A picture of up to 6 megapixels may use `cpu_seconds` of CPU time, a larger one in proportion, and a progressive JPEG
    may have `scans` scans. Two small pictures and one large one are decoded at a time; the process of a large one ends
    with it, so that its memory is given back. Every method raises ImageError for a picture that cannot be had, Busy where
    no process can be started, and may be cancelled, which ends the work.
    """

    def __init__(self, limits: Limits, *, cpu_seconds: float = 1.5, scans: int = 64) -> None:
        self.limits = limits
        self._cpu_seconds = cpu_seconds
        self._scans = scans
        self._quick = _Lane(2, _QUICK_PIXELS)
        self._large = _Lane(1, limits.max_pixels)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="decode")
        self._processes: set[_Process] = set()
        self._closed = False
        weakref.finalize(self, _end_all, self._processes)

    @property
    def pids(self) -> list[int]:
        """The processes that are there now."""
        return [process.pid for process in self._processes]

    async def open(self, content: bytes) -> Image.Image:
        """The picture in a file's bytes, upright, RGB."""
        head, pixels = await self._done({"do": "open"}, content)
        # Copying hundreds of megabytes is no work for the event loop.
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, Image.frombytes, "RGB", tuple(head["size"]), pixels
        )

    async def preview(self, content: bytes) -> Preview:
        """A smaller copy of the picture in a file's bytes."""
        head, shown = await self._done({"do": "preview"}, content)
        return Preview(Size(*head["size"]), bytes(shown), head["media_type"])

    async def draw(self, content: bytes, boxes: Sequence[Drawable]) -> bytes:
        """The picture in a file's bytes with boxes on it, as PNG."""
        drawn = [(box.number, box.label, box.pixels) for box in boxes]
        _, png = await self._done({"do": "draw", "boxes": drawn}, content)
        return bytes(png)

    def close(self) -> None:
        """End the processes; no picture is opened any more."""
        self._closed = True
        _end_all(self._processes)
        for process in list(self._processes):
            process.end()
        self._processes.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def kill(self) -> None:
        """End the processes at once, from any thread; for a process that is about to end itself."""
        processes = list(self._processes)
        _end_all(self._processes)
        for process in processes:
            process.reap()

    async def _done(self, job: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytearray]:
        if not content:
            raise ImageError("a picture cannot be empty, this one is; send the file")
        job |= {"limits": as_dict(self.limits)}
        head, result = await self._in_lane(self._quick, job, content)
        if head.get("larger"):
            head, result = await self._in_lane(self._large, job, content)
        if "error" in head:
            raise ImageError(str(head["error"]))
        return head, result

    async def _in_lane(
        self, lane: _Lane, job: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytearray]:
        seconds = self._cpu_seconds * max(1.0, lane.pixels / _QUICK_PIXELS)
        budget = Budget(lane.pixels, self._scans, _SCANNED_AT_MOST * self.limits.max_pixels, seconds)
        loop = asyncio.get_running_loop()
        async with lane.slots:
            if self._closed:
                raise ImageError("the server is shutting down; send the picture again later")
            try:
                process = (
                    lane.idle.pop() if lane.idle else await loop.run_in_executor(self._threads, self._start)
                )
            except OSError:  # no memory or no descriptor is left
                raise Busy(1) from None
            keep = False
            try:
                async with asyncio.timeout(_WALL_SECONDS * (seconds + 1)):
                    result = await loop.run_in_executor(
                        self._threads, process.ask, job | {"budget": as_dict(budget)}, content
                    )
                keep = lane is self._quick
                return result
            except TimeoutError:
                raise ImageError(
                    f"a picture of its size is decoded within {_WALL_SECONDS * (seconds + 1):g} s, this one is not; "
                    "save it as PNG or as a baseline JPEG"
                ) from None
            finally:
                if keep and not self._closed:
                    lane.idle.append(process)
                else:
                    self._discard(process)

    def _start(self) -> _Process:
        process = _Process(_START_BYTES + _BYTES_PER_PIXEL * self.limits.max_pixels)
        self._processes.add(process)
        return process

    def _discard(self, process: _Process) -> None:
        process.kill()
        self._processes.discard(process)
        with contextlib.suppress(RuntimeError):  # the pool is closed, and has ended it
            self._threads.submit(process.end)
