"""A circuit breaker: a judge that fails again and again is not asked for a while, and the log says so once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from opengrit.core.errors import RecipeError

log = logging.getLogger(__name__)


class State(Enum):
    """Whether requests pass."""

    CLOSED = "closed"  # all pass
    OPEN = "open"  # none passes
    HALF_OPEN = "half-open"  # one passes, and decides


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a judge counts as down, and how long it is not asked then."""

    consecutive_failures: int = 8
    window: int = 40  # latest requests looked at
    failure_share: float = 0.5  # of a full window
    cool_down_seconds: float = 15.0  # doubled each time the judge is still down
    longest_cool_down_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.consecutive_failures < 1 or self.window < 1:
            raise RecipeError(
                "breaker: consecutive_failures and window are at least 1, got "
                f"{self.consecutive_failures} and {self.window}; raise them"
            )
        if not 0 < self.failure_share <= 1:
            raise RecipeError(
                f"breaker: failure_share is above 0 and at most 1, got {self.failure_share}; change it"
            )
        if not 0 < self.cool_down_seconds <= self.longest_cool_down_seconds:
            raise RecipeError(
                "breaker: cool_down_seconds is above 0 and at most longest_cool_down_seconds, got "
                f"{self.cool_down_seconds} and {self.longest_cool_down_seconds}; change one"
            )


class Breaker:
    """Closed until too many requests fail, then open for a while, then half-open: one request decides.

    Used by several threads. `clock` gives seconds that never go back.
    """

    def __init__(
        self, settings: BreakerSettings | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings or BreakerSettings()
        self._clock = clock
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._in_a_row = 0
        self._latest: deque[bool] = deque(maxlen=self._settings.window)  # True: failed
        self._cool_down = self._settings.cool_down_seconds
        self._opened_at = 0.0
        self._tripped_at = 0.0
        self._trying = False
        self._reason = ""

    @property
    def state(self) -> State:
        """The state at this moment."""
        with self._lock:
            return self._now()

    @property
    def reason(self) -> str:
        """The latest failure, in its own words; empty before the first."""
        with self._lock:
            return self._reason

    @property
    def seconds_to_wait(self) -> float:
        """How long none passes yet; 0 where one may."""
        with self._lock:
            if self._now() is not State.OPEN:
                return 0.0
            return max(0.0, self._opened_at + self._cool_down - self._clock())

    def allows(self) -> bool:
        """Whether a request may be made now. Where it may, `succeeded`, `failed` or `withdrawn` follows."""
        with self._lock:
            match self._now():
                case State.CLOSED:
                    return True
                case State.OPEN:
                    return False
            if self._trying:
                return False
            self._trying = True
            return True

    def succeeded(self) -> None:
        """A request was answered."""
        with self._lock:
            if self._now() is State.OPEN:
                return  # a straggler, sent before it opened; the request that is tried decides
            if self._now() is State.HALF_OPEN:
                log.info("the judge answers again after %.0f s", self._clock() - self._tripped_at)
                self._state, self._trying = State.CLOSED, False
                self._cool_down = self._settings.cool_down_seconds
                self._latest.clear()
            self._in_a_row = 0
            self._latest.append(False)

    def failed(self, reason: str) -> None:
        """A request had no answer."""
        with self._lock:
            self._reason = reason
            match self._now():
                case State.OPEN:
                    return
                case State.HALF_OPEN:
                    longest = self._settings.longest_cool_down_seconds
                    self._cool_down = min(longest, 2 * self._cool_down)
                    self._open()
                    return
            self._in_a_row += 1
            self._latest.append(True)
            if self._too_many():
                self._tripped_at = self._clock()
                self._open()
                log.warning(
                    "the judge is down and is not asked for now: %d of the last %d requests failed (%s); "
                    "next try in %.0f s",
                    sum(self._latest),
                    len(self._latest),
                    reason,
                    self._cool_down,
                )

    def withdrawn(self) -> None:
        """A request that was allowed is not made after all, or was cut off: it says nothing about the judge."""
        with self._lock:
            self._trying = False

    def _open(self) -> None:
        self._state, self._opened_at = State.OPEN, self._clock()
        self._trying, self._in_a_row = False, 0

    def _too_many(self) -> bool:
        full = len(self._latest) == self._settings.window
        share = sum(self._latest) / self._settings.window
        return self._in_a_row >= self._settings.consecutive_failures or (
            full and share >= self._settings.failure_share
        )

    def _now(self) -> State:
        if self._state is State.OPEN and self._clock() >= self._opened_at + self._cool_down:
            self._state = State.HALF_OPEN
        return self._state
