"""What a reward is: a function of an `Attempt`, and a `RewardSpec` that states its range and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from opengrit.core.plugins import OwnFunction
from opengrit.core.types import Completion, Example, Transcript, Unjudged, Verdict

# None: nothing was asked again, or the second answer was cut off.
SecondAnswer = Verdict | Unjudged | None


@dataclass(frozen=True, slots=True)
class SecondAnswers:
    """What a judge thinks of the answers to the same question with all but the boxes in grey, and with the boxes in grey."""

    kept: SecondAnswer
    hidden: SecondAnswer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer to one example, parsed and judged: all that a reward may look at.

    `step` is the optimizer step that the answer is sampled for, from 1 on; None where nothing is trained. `second` are the
    second answers; None where nobody asks again.
    """

    example: Example
    completion: Completion
    transcript: Transcript
    verdict: Verdict | Unjudged
    step: int | None = None
    second: SecondAnswers | None = None


class Requirement(Enum):
    """What a reward needs beyond the transcript; the first four are properties of the data."""

    WORDS = "rows whose answer is words or a number, not a box"
    BOXES = 'rows with annotated boxes ("bboxs")'
    COUNTABLE_BOXES = "rows with a box for each object (counting rows: as many as the answer)"
    COUNTS = 'counting rows (an integer answer to a "How many" question)'
    VERDICT = "a judge"
    SECOND_ANSWERS = "second answers (asking_again)"
    TOKEN_IDS = "the token ids of the completion"


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """The least and the most a reward returns, and what it needs."""

    low: float
    high: float
    needs: frozenset[Requirement] = frozenset()


# A number, None where the reward says nothing about the row, Unjudged where it could not be measured.
Reward = Callable[[Attempt], float | Unjudged | None]


@dataclass(frozen=True, slots=True)
class NamedReward:
    """A reward as a recipe names it, shipped or your own: what is called, with which keywords, and what it states.

    `call` takes an attempt, or where `batched` a sequence of them, and may be a coroutine function.
    """

    name: str
    call: Callable[..., Any]
    spec: RewardSpec
    keywords: Mapping[str, Any] = field(default_factory=dict)
    batched: bool = False
    own: OwnFunction | None = None
