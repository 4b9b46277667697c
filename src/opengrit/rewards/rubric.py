"""The `Rubric`: named weights in, a total with its parts out; and the sets of rewards that are shipped by name.

`paper` is the reward as the paper states it (GRIT, arXiv 2505.15879, section 3.2). `released` is what the official code
adds up, formula by formula but without its mistakes: where a formula and a mistake in its code disagree, the formula
is kept and the docstring says what was dropped.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from opengrit.core.errors import RecipeError, RewardError
from opengrit.core.escaping import shortened
from opengrit.core.types import Example, Score, Unjudged, is_counting
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.answers import ANSWER_REWARDS
from opengrit.rewards.boxes import BOX_REWARDS
from opengrit.rewards.format import FORMAT_REWARDS
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec

_ALL = ANSWER_REWARDS | FORMAT_REWARDS | BOX_REWARDS
REWARDS: dict[str, Reward] = {reward.__name__: reward for reward in _ALL}
SPECS: dict[str, RewardSpec] = {reward.__name__: spec for reward, spec in _ALL.items()}

PAPER = {"tag_pairs": 1.0, "points_before_rethinking": 0.5, "box_count": 0.5, "correct": 1.0, "bleu1": 0.1}
RELEASED = {
    "any_credit": 1.0,
    "bleu1": 0.1,
    "answer_tag": 0.5,
    "repetition": 0.5,
    "boxes_before_rethink_tag": 1.0,
    "tag_walk": 0.5,
}
ANSWER_ONLY = {"correct": 1.0}  # plain GRPO: the control that shows what grounding adds
SETS: dict[str, dict[str, float]] = {"paper": PAPER, "released": RELEASED, "answer_only": ANSWER_ONLY}

_APPLIES: dict[Requirement, Callable[[Example], bool]] = {
    Requirement.WORDS: lambda example: not is_box_answer(example.answer),
    Requirement.BOXES: lambda example: bool(example.boxes),
    Requirement.COUNTS: is_counting,
}
_LARGEST_TOTAL = 1e30  # totals are compared in 32 bits, which end at 3e38


@dataclass(frozen=True, slots=True)
class Rubric:
    """Rewards by name and their weights. Build one with `named` or `from_weights`, which refuse unknown names."""

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights:
            raise RecipeError(
                "rewards must name at least one reward, got none; write for example rewards: paper"
            )
        for name, weight in self.weights.items():
            if name not in REWARDS:
                raise RecipeError(_unknown("a reward", name, REWARDS, place="rewards"))
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise RecipeError(
                    f"a reward's weight must be a finite number, got {weight!r} for rewards.{name}; "
                    f"write for example {name}: 1.0"
                )
        if sum(abs(weight) for weight in self.weights.values()) > _LARGEST_TOTAL:
            raise RecipeError(
                f"the weights of the rewards add up to at most {_LARGEST_TOTAL:g}, got {dict(self.weights)}; "
                "divide all of them under rewards:"
            )

    @classmethod
    def named(cls, name: str) -> Rubric:
        """The shipped set of that name: "paper", "released" or "answer_only". Raises RecipeError on another."""
        if name not in SETS:
            raise RecipeError(_unknown("a set of rewards", name, SETS, place="rewards"))
        return cls.from_weights(SETS[name])

    @classmethod
    def from_weights(cls, weights: Mapping[str, float]) -> Rubric:
        """A rubric of these rewards; weight 0 reports a part without rewarding it. Raises RecipeError."""
        return cls(dict(weights))

    def score(self, attempt: Attempt) -> Score:
        """The weighted total and the unweighted parts, in the rubric's order.

        A part is None where its reward says nothing about the row, and adds nothing; where all are, there is no total.
        Nor is there one where a reward could not be measured: its part is absent, `missing` says why and the other
        parts are kept. A reward of weight 0 is only reported, and cannot cost the total. Raises RewardError where a
        reward breaks its spec.
        """
        parts: dict[str, float | None] = {}
        reasons: list[str] = []
        for name, weight in self.weights.items():
            match measure(name, attempt):
                case Unjudged(reason=reason):
                    reasons += [reason] if weight else []
                case value:
                    parts[name] = value
        if all(value is None for value in parts.values()):
            reasons = reasons or ["no reward says anything about this row"]
        if reasons:
            return Score(total=None, parts=parts, missing="; ".join(dict.fromkeys(reasons)))
        total = math.fsum(self.weights[name] * value for name, value in parts.items() if value is not None)
        return Score(total=total, parts=parts)

    def needs(self) -> frozenset[Requirement]:
        """Everything that some reward of this rubric needs."""
        return frozenset().union(*(SPECS[name].needs for name in self.weights))

    def check(self, examples: Sequence[Example]) -> None:
        """Raise RecipeError if a reward can apply to none of the examples: it would be a constant, and teach nothing."""
        for name in self.weights:
            for need in SPECS[name].needs & _APPLIES.keys():
                if not any(_APPLIES[need](example) for example in examples):
                    raise RecipeError(
                        f"every reward must apply to some row, and '{name}' needs {need.value}, of which there are "
                        f"none in {len(examples)} rows; leave it out of rewards: or add such rows"
                    )


_ROUNDING = 1e-9  # how far a sum of floats may lie beyond a stated bound


def measure(
    name: str, attempt: Attempt, *, rewards: Mapping[str, Reward] = REWARDS
) -> float | Unjudged | None:
    """What the reward of that name returns for an attempt, as a float where it is a number.

    Raises RewardError, which names the reward, what it did and the row, where it raises, returns something that is no
    number (True and False included), NaN or an infinity, or leaves its stated range.
    """
    reward, spec = rewards[name], SPECS[name]
    try:
        value = reward(attempt)
    except (
        Exception
    ) as error:  # a reward is any code: whatever it raises is its own mistake, and is reported as such
        what = f"raised {type(error).__name__} ({' '.join(str(error).split())})"
        raise RewardError(_broken(name, reward, attempt, what)) from error
    if value is None or isinstance(value, Unjudged):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RewardError(_broken(name, reward, attempt, f"returned {shortened(repr(value))}"))
    number = float(value)
    if not spec.low - _ROUNDING <= number <= spec.high + _ROUNDING:  # also true of NaN
        raise RewardError(_broken(name, reward, attempt, f"returned {number}"))
    return number


def _broken(name: str, reward: Reward, attempt: Attempt, what: str) -> str:
    example, spec, code = attempt.example, SPECS[name], getattr(reward, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return (
        f"a reward returns a number from {spec.low:g} to {spec.high:g}, None or Unjudged, rewards.{name} {what} for the "
        f"row {example.id!r} of {example.dataset!r}; fix the reward{place} or leave it out of rewards:"
    )


def _unknown(kind: str, name: str, known: Mapping[str, object], *, place: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean '{close[0]}', of" if close else "write one of"
    return f"{place} must name {kind}, got '{name}'; {remedy} {', '.join(known)}{'?' if close else ''}"
