"""What rewards return for attempts: called one by one, as a batch or together on an event loop, and checked value by value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from opengrit.core.errors import RewardError
from opengrit.core.escaping import shortened
from opengrit.core.plugins import RAISED, is_asynchronous
from opengrit.core.types import Unjudged
from opengrit.rewards.protocol import Attempt, NamedReward

Value = float | Unjudged | None
_ROUNDING = 1e-9  # how far a sum of floats may lie beyond a stated bound


def measure(rewards: Sequence[NamedReward], attempts: Sequence[Attempt]) -> list[list[Value]]:
    """For each reward its values for the attempts, in their order; numbers as floats.

    Coroutines of all rewards are awaited together, after the rewards that are none. Raises RewardError, which names the
    reward, what it did, the row and the line of its file, where one raises, returns something that is no number (True
    and False included), NaN or an infinity, or leaves its stated range.
    """
    found: dict[int, list[Value]] = {}
    awaited = [i for i, reward in enumerate(rewards) if is_asynchronous(reward.call)]
    for i, reward in enumerate(rewards):
        if i not in awaited:
            found[i] = _checked(reward, attempts, [_call(reward, one) for one in _calls(reward, attempts)])
    if awaited:
        from opengrit.clients.event_loop import shared_loop  # brings a client that others do not need

        answers = shared_loop().run(_await_all([rewards[i] for i in awaited], attempts))
        for i, answer in zip(awaited, answers, strict=True):
            found[i] = _checked(rewards[i], attempts, answer)
    return [found[i] for i in range(len(rewards))]


def _calls(reward: NamedReward, attempts: Sequence[Attempt]) -> list[Any]:
    """What the reward is called with, call by call."""
    return [tuple(attempts)] if reward.batched else list(attempts)


class _Raised:
    """What a reward raised: its own mistake, whatever it is, and reported with its row."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _call(reward: NamedReward, argument: Any) -> Any:
    try:
        return reward.call(argument, **reward.keywords)
    except RAISED as error:
        return _Raised(error)


async def _await(reward: NamedReward, argument: Any) -> Any:
    try:
        return await reward.call(argument, **reward.keywords)
    except RAISED as error:
        return _Raised(error)


async def _await_all(rewards: Sequence[NamedReward], attempts: Sequence[Attempt]) -> list[list[Any]]:
    async def of(reward: NamedReward) -> list[Any]:
        return list(await asyncio.gather(*(_await(reward, one) for one in _calls(reward, attempts))))

    return list(await asyncio.gather(*(of(reward) for reward in rewards)))


def _checked(reward: NamedReward, attempts: Sequence[Attempt], answers: list[Any]) -> list[Value]:
    if reward.batched:
        answers = _unpacked(reward, attempts, answers[0])
    return [_value(reward, attempt, answer) for attempt, answer in zip(attempts, answers, strict=True)]


def _unpacked(reward: NamedReward, attempts: Sequence[Attempt], answer: Any) -> list[Any]:
    if isinstance(answer, _Raised):
        return [answer] * len(attempts)
    values = (
        list(answer) if isinstance(answer, Sequence | np.ndarray) and not isinstance(answer, str) else None
    )
    if values is None or len(values) != len(attempts):
        got = f"{len(values)} of them" if values is not None else shortened(repr(answer))
        raise _broken(
            reward,
            attempts[0],
            f"returned {got} for {len(attempts)} attempts instead of a list with a value for each,",
        )
    return values


def _value(reward: NamedReward, attempt: Attempt, answer: Any) -> Value:
    if isinstance(answer, _Raised):
        what = f"raised {type(answer.error).__name__} ({' '.join(str(answer.error).split())})"
        raise _broken(reward, attempt, what, error=answer.error) from answer.error
    if answer is None or isinstance(answer, Unjudged):
        return answer
    if isinstance(answer, bool) or not isinstance(answer, Real):
        raise _broken(reward, attempt, f"returned {shortened(repr(answer))}")
    number = float(answer)
    if not reward.spec.low - _ROUNDING <= number <= reward.spec.high + _ROUNDING:  # also true of NaN
        raise _broken(reward, attempt, f"returned {number}")
    return number


def _broken(
    reward: NamedReward, attempt: Attempt, what: str, *, error: BaseException | None = None
) -> RewardError:
    example, spec = attempt.example, reward.spec
    return RewardError(
        f"a reward returns a number from {spec.low:g} to {spec.high:g}, None or Unjudged, rewards.{reward.name} {what} for "
        f"the row {example.id!r} of {example.dataset!r} ({shortened(example.question)!r}, picture {example.image}); fix the "
        f"reward ({_place(reward, error)}) or leave it out of rewards:"
    )


def _place(reward: NamedReward, error: BaseException | None) -> str:
    if reward.own is not None:
        return reward.own.place if error is None else reward.own.raised_at(error)
    code = getattr(reward.call, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else reward.name
