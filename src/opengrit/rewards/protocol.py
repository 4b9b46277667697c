"""What a reward is: a function of an `Attempt`, and a `RewardSpec` that states its range and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Completion, Example, Transcript, Unjudged, Verdict


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer to one example, parsed and judged: all that a reward may look at."""

    example: Example
    completion: Completion
    transcript: Transcript
    verdict: Verdict | Unjudged


class Requirement(Enum):
    """What a reward needs beyond the transcript; the first three are properties of the data."""

    WORDS = "rows whose answer is words or a number, not a box"
    BOXES = 'rows with annotated boxes ("bboxs")'
    COUNTS = 'counting rows (an integer answer to a "How many" question)'
    VERDICT = "a judge"
    TOKEN_IDS = "the token ids of the completion"


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """The least and the most a reward returns, and what it needs."""

    low: float
    high: float
    needs: frozenset[Requirement] = frozenset()


# A number, None where the reward says nothing about the row, Unjudged where it could not be measured.
Reward = Callable[[Attempt], float | Unjudged | None]
