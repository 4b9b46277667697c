"""Listeners to a completion while it is written, for a consumer in another thread or in an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_End = TypeVar("_End")


class StopSignal:
    """A listener that ignores the text, and stops the model at its next token once `stop` is called."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def wrote(self, question: int, sample: int, text: str) -> None:
        return None

    def wants(self, question: int) -> bool:
        return not self._stopped.is_set()


class QueueListener(StopSignal, Generic[_End]):
    """A listener that puts each piece of text into a consumer's queue; its user puts the end there too."""

    def __init__(self, put: Callable[[str | _End], object]) -> None:
        super().__init__()
        self.put = put

    @classmethod
    def in_loop(cls, pieces: asyncio.Queue[str | _End]) -> QueueListener[_End]:
        """For a queue of the running event loop."""
        loop = asyncio.get_running_loop()

        def put(piece: str | _End) -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                listener.stop()

        listener = cls(put)
        return listener

    def wrote(self, question: int, sample: int, text: str) -> None:
        if text:
            self.put(text)
