"""Listeners to a completion while it is written, for whoever waits in another thread or in an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from opengrit.inference.answer import Answer


class Wanted:
    """A listener that hears nothing and stops the model when its block is left."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()

    def wrote(self, question: int, sample: int, text: str) -> None:
        return None

    def wants(self, question: int) -> bool:
        return not self._stopped.is_set()


class Heard(Wanted):
    """A listener that passes on what is written to whoever waits for it in another thread or an event loop."""

    def __init__(self, put: Callable[[str | Answer | Exception], None]) -> None:
        super().__init__()
        self._put = put

    def wrote(self, question: int, sample: int, text: str) -> None:
        if text:
            self._put(text)

    def end(self, end: Answer | Exception) -> None:
        """The last thing said."""
        self._put(end)


def put_into(
    loop: asyncio.AbstractEventLoop,
    pieces: asyncio.Queue[str | Answer | Exception],
    piece: str | Answer | Exception,
) -> None:
    # A loop that is closed by now has nobody in it who waits for this piece.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
