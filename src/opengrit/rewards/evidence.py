"""Rewards of evidence that an answer needs: the question is asked again with the boxes in grey, and with all else in grey.

A new reward is a function here and its entry in `EVIDENCE_REWARDS`. What is asked again, and of whom, is the trainer's:
rewards stay pure, and an `Attempt` brings the second answers.
"""

from __future__ import annotations

from opengrit.core.types import Unjudged
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec, SecondAnswer

_NOT_ASKED = Unjudged("the rewards kept and hidden need the second questions of a training with asking_again")


def kept(attempt: Attempt) -> float | Unjudged | None:
    """1 if the answer is right and still is with all but its boxes in grey, else 0; None where the answer is a box.

    0 where nothing was asked again: there is no box, or the boxes cover more than `asking_again.max_covered`; and where the
    second answer was cut off. Alone it is won by the largest boxes that are allowed, so it goes with `hidden`. Sufficiency,
    as DeFacto (arXiv 2509.20912) and SCCM (arXiv 2510.23482) reward it.
    """
    second = attempt.second.kept if attempt.second is not None else _NOT_ASKED
    return _paid(attempt, second, for_right=True)


def hidden(attempt: Attempt) -> float | Unjudged | None:
    """1 if the answer is right and no longer is with its boxes in grey, else 0; None where the answer is a box.

    0 where `kept` is 0 for want of a second answer. Alone it is won by large boxes over whatever matters. Necessity, as
    CED (arXiv 2608.08021) rewards it, by answers in place of likelihoods.
    """
    second = attempt.second.hidden if attempt.second is not None else _NOT_ASKED
    return _paid(attempt, second, for_right=False)


def _paid(attempt: Attempt, second: SecondAnswer, *, for_right: bool) -> float | Unjudged | None:
    if is_box_answer(attempt.example.answer):
        return None
    if isinstance(attempt.verdict, Unjudged):
        return attempt.verdict
    if not attempt.verdict.correct or second is None:
        return 0.0
    return second if isinstance(second, Unjudged) else float(second.correct is for_right)


_SECOND = frozenset({Requirement.WORDS, Requirement.VERDICT, Requirement.SECOND_ANSWERS})
EVIDENCE_REWARDS: dict[Reward, RewardSpec] = {
    kept: RewardSpec(0.0, 1.0, _SECOND),
    hidden: RewardSpec(0.0, 1.0, _SECOND),
}
