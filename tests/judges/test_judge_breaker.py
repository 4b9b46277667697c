from __future__ import annotations

import logging

import pytest

from opengrit.core.errors import RecipeError
from opengrit.judges.breaker import Breaker, BreakerSettings, State

SETTINGS = BreakerSettings(
    consecutive_failures=3,
    window=10,
    failure_share=0.5,
    cool_down_seconds=10.0,
    longest_cool_down_seconds=35.0,
)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(SETTINGS, clock=clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed("HTTP 500")
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(SETTINGS, clock=Clock())
    breaker.failed("a")
    breaker.failed("b")
    assert breaker.state is State.CLOSED
    breaker.succeeded()
    breaker.failed("c")
    breaker.failed("d")
    assert breaker.state is State.CLOSED
    breaker.failed("e")
    assert breaker.state is State.OPEN
    assert not breaker.allows()
    assert breaker.reason == "e"


def test_it_opens_when_half_of_a_full_window_failed() -> None:
    breaker = Breaker(SETTINGS, clock=Clock())
    for _ in range(3):  # failed, failed, answered: never three in a row
        breaker.failed("x")
        breaker.failed("x")
        breaker.succeeded()
    assert breaker.state is State.CLOSED  # six of nine, and the window has ten
    breaker.failed("x")
    assert breaker.state is State.OPEN


def test_few_failures_among_many_answers_leave_it_closed() -> None:
    breaker = Breaker(SETTINGS, clock=Clock())
    for _ in range(50):
        breaker.failed("x")
        breaker.failed("x")
        for _ in range(3):
            breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_after_the_cool_down_one_request_passes_and_decides() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 9.9
    assert not breaker.allows()
    assert breaker.seconds_to_wait == pytest.approx(0.1)
    clock.now += 0.1
    assert breaker.state is State.HALF_OPEN
    assert breaker.seconds_to_wait == 0
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert breaker.allows()


def test_each_failed_try_doubles_the_cool_down_up_to_the_longest() -> None:
    clock = Clock()
    breaker = broken(clock)
    waits = []
    for _ in range(4):
        waits.append(breaker.seconds_to_wait)
        clock.now += breaker.seconds_to_wait
        assert breaker.allows()
        breaker.failed("still down")
    assert waits == pytest.approx([10, 20, 35, 35])
    clock.now += 35
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(3):
        breaker.failed("down again")
    assert breaker.seconds_to_wait == pytest.approx(10)


def test_a_try_that_is_withdrawn_leaves_room_for_another() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 10
    assert breaker.allows()
    breaker.withdrawn()
    assert breaker.state is State.HALF_OPEN
    assert breaker.allows()


def test_an_answer_to_a_request_from_before_does_not_close_it() -> None:
    clock = Clock()
    breaker = broken(clock)
    breaker.succeeded()
    assert breaker.state is State.OPEN
    breaker.failed("late")
    assert breaker.seconds_to_wait == pytest.approx(10)


def test_it_says_once_that_the_judge_is_down_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    breaker = broken(clock)
    for _ in range(3):
        clock.now += breaker.seconds_to_wait
        breaker.allows()
        breaker.failed("HTTP 500")
    clock.now += breaker.seconds_to_wait
    breaker.allows()
    breaker.succeeded()
    breaker.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "the judge is down and is not asked for now: 3 of the last 3 requests failed (HTTP 500); next try in 10 s",
        "the judge answers again after 100 s",  # 10 + 20 + 35 + 35
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"consecutive_failures": 0},
        {"window": 0},
        {"failure_share": 0.0},
        {"failure_share": 1.5},
        {"cool_down_seconds": 0.0},
        {"cool_down_seconds": 400.0},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="breaker"):
        BreakerSettings(**change)  # type: ignore[arg-type]
