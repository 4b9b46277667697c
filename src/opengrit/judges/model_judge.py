"""A language model as a judge: the protocol, its prompt, how its reply is sampled, and what its score means."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from opengrit.core.errors import RecipeError
from opengrit.core.types import Unjudged, Verdict
from opengrit.grounding.prompts import judge_prompt
from opengrit.judges.protocol import BatchJudge, Case
from opengrit.judges.reply import SCORE, own_key, read_score, scores_in


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """How a judge's reply is sampled. None leaves the choice to the server (some models take neither)."""

    temperature: float | None = 0.0
    max_tokens: int | None = 256

    def params(self) -> dict[str, Any]:
        """The parameters of a chat request."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on an answer counts as right.

    The paper's reward is binary and does not state the threshold. The released code takes any score above 0, which makes
    a partly right answer worth as much as a right one.
    """

    correct_from: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.correct_from <= 1:
            raise RecipeError(
                f"judge.correct_from: is above 0 and at most 1, got {self.correct_from}; 0.5 is half of the mark"
            )

    def verdict(self, score: float, *, judge: str) -> Verdict:
        """The verdict for a score in [0, 1]."""
        return Verdict(correct=score >= self.correct_from, score=score, judge=judge)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What judging is going to ask for, before anything is asked. `cost` is None where prices are not known."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


class ModelJudge(BatchJudge, Protocol):
    """A judge that is a language model, so that asking it again costs something."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything but the case that its score depends on, ready for JSON."""
        ...

    @property
    def cost(self) -> float | None:
        """What was spent so far, in the currency of its prices; None where they are not known."""
        ...

    def close(self) -> None:
        """Ends its connections and threads."""
        ...

    def verdict(self, score: float) -> Verdict:
        """Its verdict where it gives that score."""
        ...

    def estimate(self, cases: Sequence[Case]) -> CostEstimate:
        """What judging these cases asks for."""
        ...


def prompt_text(case: Case, *, reserved: Collection[str] = ()) -> str:
    """The paper's judge prompt for a case; the `reserved` tokens of a tokenizer are escaped in the case's texts."""
    return judge_prompt(
        case.question, expected=case.expected, given=case.given, key=score_key(case), reserved=reserved
    )


def score_key(case: Case) -> str:
    """What the reply about a case calls its score."""
    return own_key(_texts(case))


def score_of(reply: str, case: Case) -> float | Unjudged:
    """The score in [0, 1] that a whole reply gives a case, or why it gives none."""
    key = score_key(case)
    claimed = frozenset() if key == SCORE else scores_in(_texts(case))
    return read_score(reply, key=key, claimed=claimed)


def _texts(case: Case) -> tuple[str, str, str]:
    return case.question, case.expected, case.given


def prompt_version() -> str:
    """The hash of the prompt's wording and of how texts are quoted in it: another wording is another judge."""
    sample = judge_prompt('{question}"', expected="{expected}\n`[INST]", given="<{given}>", key="{key}")
    return hashlib.sha256(sample.encode()).hexdigest()
