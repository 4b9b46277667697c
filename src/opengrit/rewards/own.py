"""Rewards of your own: the decorator that states a range, and a recipe's reference to a function as a reward."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import OwnFunction, Reference, keywords_of, load
from opengrit.rewards.protocol import NamedReward, RewardSpec

_Function = TypeVar("_Function", bound=Callable[..., Any])
_UNIT = (0.0, 1.0)


def reward(*, range: tuple[float, float] = _UNIT, batched: bool = False) -> Callable[[_Function], _Function]:
    """Marks a function as a reward that returns numbers in a range, its two ends included.

    A `batched` one takes a sequence of attempts and returns a sequence of values, one for each. Without the decorator the
    range is 0 to 1 and the function takes one attempt; the attributes `range` and `batched` of a function say the same.
    """

    def mark(function: _Function) -> _Function:
        function.range, function.batched = range, batched  # type: ignore[attr-defined]
        return function

    return mark


def own_reward(reference: Reference, keywords: Mapping[str, Any]) -> NamedReward:
    """The reward that a recipe's reference names, with the keywords that the recipe gives it.

    Raises RecipeError where there is no such function, it does not take the keywords, or its range is none.
    """
    function = load(reference)
    batched = getattr(function.call, "batched", False)
    return NamedReward(
        name=str(reference),
        call=function.call,
        spec=_spec(function),
        keywords=keywords_of(function, keywords, arguments=1),
        batched=bool(batched),
        own=function,
    )


def _spec(function: OwnFunction) -> RewardSpec:
    stated = getattr(function.call, "range", _UNIT)
    try:
        low, high = (float(end) for end in stated)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RecipeError(
            f"the range of a reward is two numbers, the smaller first, that of {function.file.reference} is {stated!r}; "
            f"write for example @reward(range=(0, 1)) ({function.place})"
        )
    if inspect.isclass(function.call):
        raise RecipeError(
            f"a reward is a function of an attempt, {function.file.reference} is a class; name a function ({function.place})"
        )
    return RewardSpec(low, high)
