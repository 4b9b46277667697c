"""A log that repeats itself once a minute, with a count: what a client can cause again and again fills no disk."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

_SECONDS = 60.0
_MOST = 500  # different messages that are remembered
_VARYING = re.compile(r"0x[0-9a-f]+|\d+")
_LOGGERS = (
    "asyncio",
    "uvicorn.error",
    "opengrit.serving.connections",
    "opengrit.serving.local",
    "opengrit.serving.page_backend",
)


class OncePerMinute(logging.Filter):
    """Passes a message that was not passed within a minute, numbers aside; the next one says how many were left out."""

    def __init__(self, *, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._left_out: dict[str, tuple[float, int]] = {}  # by message: until when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        now, key = self._clock(), _kind(record)
        until, count = self._left_out.get(key, (now, 0))
        if now < until:
            self._left_out[key] = (until, count + 1)
            return False
        self._left_out.pop(key, None)
        if len(self._left_out) >= _MOST:
            self._left_out.pop(next(iter(self._left_out)))
        self._left_out[key] = (now + self._seconds, 0)
        if count:
            record.msg = f"{record.getMessage()} ({count} similar messages omitted)"
            record.args = ()
        return True


def _kind(record: logging.LogRecord) -> str:
    """What makes two messages alike: the logger, the text without its numbers, the exception and its place."""
    place = ""
    if record.exc_info and record.exc_info[0] is not None:
        last = record.exc_info[2]
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = f"{record.exc_info[0].__name__} {last.tb_frame.f_code.co_filename if last else ''} {last.tb_lineno if last else 0}"
    return f"{record.name} {_VARYING.sub('#', record.getMessage()[:500])} {place}"


def limit_logs() -> None:
    """Let the loggers of the server, and of what it runs on, repeat themselves once a minute."""
    repeated = OncePerMinute()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(repeated)
