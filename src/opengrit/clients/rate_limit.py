"""A rate that is kept: so much in a minute, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class TokenBucket:
    """At most `per_minute` in a minute on average, and a second's worth (at least one) at once.

    More than that at once is let through when the bucket is full, and then paid back before the next.
    """

    def __init__(
        self, per_minute: float, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second)
        self._level = self._capacity
        self._filled_at = clock()
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()  # first come, first served

    async def take(self, amount: float) -> None:
        """Returns when the amount may be used."""
        async with self._turn:
            needed = min(amount, self._capacity)
            self._fill()
            # A remainder below a nanosecond is rounding, and would be waited for without end.
            while (short := (needed - self._level) / self._per_second) > 1e-9:
                await self._sleep(short)
                self._fill()
            self._level -= amount

    def correct(self, amount: float) -> None:
        """Puts back what was taken and not used; takes more where the amount is negative."""
        self._level = min(self._capacity, self._level + amount)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
