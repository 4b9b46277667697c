"""The `Rubric`: named weights in, a total with its parts out; and the sets of rewards that are shipped by name.

`paper` is the reward as the paper states it (GRIT, arXiv 2505.15879, section 3.2). `released` is what the official code
adds up, formula by formula but without its mistakes: where a formula and a mistake in its code disagree, the formula
is kept and the docstring says what was dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from opengrit.core.errors import RecipeError
from opengrit.core.messages import nearest
from opengrit.core.plugins import FORM, looks_own
from opengrit.core.types import Example, Score, Unjudged, boxes_are_one_to_one, is_counting
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.answers import ANSWER_REWARDS
from opengrit.rewards.boxes import BOX_REWARDS
from opengrit.rewards.controls import CONTROL_REWARDS
from opengrit.rewards.evidence import EVIDENCE_REWARDS
from opengrit.rewards.format import FORMAT_REWARDS
from opengrit.rewards.gates import Gate, gated
from opengrit.rewards.measuring import measure
from opengrit.rewards.overlap import OVERLAP_REWARDS
from opengrit.rewards.protocol import Attempt, NamedReward, Requirement, Reward, RewardSpec

_ALL = ANSWER_REWARDS | FORMAT_REWARDS | BOX_REWARDS | OVERLAP_REWARDS | EVIDENCE_REWARDS | CONTROL_REWARDS
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
RANDOM = {"random_coin": 1.0}  # the control that shows what training does whatever it rewards
SETS: dict[str, dict[str, float]] = {
    "paper": PAPER,
    "released": RELEASED,
    "answer_only": ANSWER_ONLY,
    "random": RANDOM,
}

_APPLIES: dict[Requirement, Callable[[Example], bool]] = {
    Requirement.WORDS: lambda example: not is_box_answer(example.answer),
    Requirement.BOXES: lambda example: bool(example.boxes),
    Requirement.COUNTABLE_BOXES: boxes_are_one_to_one,
    Requirement.COUNTS: is_counting,
}
_LARGEST_TOTAL = 1e30  # totals are compared in 32 bits, which end at 3e38


@dataclass(frozen=True, slots=True)
class Rubric:
    """Rewards by name and their weights; `own` are those that are not shipped, `gates` what must hold before one pays.

    Build one with `named` or `from_weights`, which refuse unknown names, or from a recipe (`settings.rubric_of`).
    """

    weights: Mapping[str, float]
    own: Mapping[str, NamedReward] = field(default_factory=dict)
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in REWARDS and name not in self.own:
                raise RecipeError(unknown_reward(name))
        check_weights(self.weights)

    @classmethod
    def named(cls, name: str) -> Rubric:
        """The shipped set of that name: "paper", "released", "answer_only" or "random". Raises RecipeError on another."""
        if name not in SETS:
            raise RecipeError(_unknown("a set of rewards", name, SETS, place="rewards"))
        return cls.from_weights(SETS[name])

    @classmethod
    def from_weights(cls, weights: Mapping[str, float]) -> Rubric:
        """A rubric of these rewards; weight 0 reports a part without rewarding it. Raises RecipeError."""
        return cls(dict(weights))

    def score(self, attempt: Attempt) -> Score:
        """The score of one attempt, as `score_all` gives it."""
        return self.score_all([attempt])[0]

    def score_all(self, attempts: Sequence[Attempt]) -> list[Score]:
        """For each attempt the weighted total and the unweighted parts, behind their gates, in the rubric's order.

        A part is None where its reward says nothing about the row, and adds nothing; where all are, there is no total.
        Nor is there one where a reward could not be measured: its part is absent, `missing` says why and the other
        parts are kept. A reward of weight 0 is only reported, and cannot cost the total. Raises RewardError where a
        reward breaks its spec.
        """
        values = measure([self.reward(name) for name in self.weights], attempts)
        return [
            self._added_up(
                {
                    name: gated(value[row], self.gates.get(name, ()), attempt)
                    for name, value in zip(self.weights, values, strict=True)
                }
            )
            for row, attempt in enumerate(attempts)
        ]

    def _added_up(self, values: Mapping[str, float | Unjudged | None]) -> Score:
        parts: dict[str, float | None] = {}
        reasons: list[str] = []
        for name, value in values.items():
            if isinstance(value, Unjudged):
                reasons += [value.reason] if self.weights[name] else []
            else:
                parts[name] = value
        if all(value is None for value in parts.values()):
            reasons = reasons or ["no reward says anything about this row"]
        if reasons:
            return Score(total=None, parts=parts, missing="; ".join(dict.fromkeys(reasons)))
        total = math.fsum(self.weights[name] * value for name, value in parts.items() if value is not None)
        return Score(total=total, parts=parts)

    def reward(self, name: str) -> NamedReward:
        """The reward of a name that the rubric weighs."""
        return self.own.get(name) or NamedReward(name, REWARDS[name], SPECS[name])

    def needs(self) -> frozenset[Requirement]:
        """Everything that some reward of this rubric needs."""
        needed = frozenset().union(*(self.reward(name).spec.needs for name in self.weights))
        judged = any(Gate.RIGHT in gates for gates in self.gates.values())
        return needed | {Requirement.VERDICT} if judged else needed

    def of_first_answers(self) -> Rubric:
        """The rubric without the rewards that need second answers, for samples of which nothing is asked again."""
        kept = {
            name: weight
            for name, weight in self.weights.items()
            if Requirement.SECOND_ANSWERS not in self.reward(name).spec.needs
        }
        return replace(self, weights=kept) if kept else self

    def check(self, examples: Sequence[Example]) -> None:
        """Raise RecipeError if a reward can apply to none of the examples: it would be a constant, and teach nothing."""
        idle = {
            name: need
            for name in self.weights
            for need in self.reward(name).spec.needs & _APPLIES.keys()
            if not any(_APPLIES[need](example) for example in examples)
        }
        if not idle:
            return
        name, need = next(iter(idle.items()))
        kept = {name: weight for name, weight in self.weights.items() if name not in idle}
        if any(kept.values()) and not self.own:
            remedy = f"write rewards: {{{', '.join(f'{name}: {weight:g}' for name, weight in kept.items())}}}"
        else:
            remedy = f"remove {', '.join(idle)} from rewards:"
        raise RecipeError(
            f"every reward must apply to some row, '{name}' needs {need.value} and none of {len(examples)} rows "
            f"qualifies; {remedy} or add such rows"
        )


def check_weights(weights: Mapping[str, object]) -> None:
    """Raise RecipeError for weights that are no finite numbers, for none at all, and for a total that no trainer can hold."""
    if not weights:
        raise RecipeError("rewards must name at least one reward, got none; write for example rewards: paper")
    total = 0.0
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise RecipeError(
                f"a reward's weight must be a finite number, got {weight!r} for rewards.{name}; "
                f"write for example {name}: 1.0"
            )
        total += abs(weight)
    if total > _LARGEST_TOTAL:
        raise RecipeError(
            f"the weights of the rewards add up to at most {_LARGEST_TOTAL:g}, got {dict(weights)}; "
            "divide all of them under rewards:"
        )


def unknown_reward(name: str) -> str:
    """What is wrong with a name that is no reward's, and the nearest one that is."""
    if looks_own(name):
        return f"rewards must name a reward, got '{name}'; one of your own is {FORM}"
    return _unknown("a reward", name, REWARDS, place="rewards")


def _unknown(kind: str, name: str, known: Mapping[str, object], *, place: str) -> str:
    close = nearest(name, known)
    remedy = f"did you mean '{close}', of" if close else "write one of"
    return f"{place} must name {kind}, got '{name}'; {remedy} {', '.join(known)}{'?' if close else ''}"
