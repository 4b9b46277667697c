"""Rewards of the answer: the judge's verdict, and the words shared with the expected answer.

A new reward is a function here and its entry in `ANSWER_REWARDS`.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from opengrit.core.types import Unjudged
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.protocol import Attempt, Requirement, Reward, RewardSpec


def correct(attempt: Attempt) -> float | Unjudged | None:
    """1 if the judge takes the answer for right, else 0 (s_GPT in the paper); None where the answer is a box."""
    if is_box_answer(attempt.example.answer):
        return None
    return attempt.verdict if isinstance(attempt.verdict, Unjudged) else float(attempt.verdict.correct)


def any_credit(attempt: Attempt) -> float | Unjudged | None:
    """1 if the judge gives the answer any credit at all, else 0; None where the answer is a box.

    The official trainer makes the judge's fraction binary this way, so an answer judged 0.1 earns as much as a
    right one. Its failed calls to the judge count as 0 there; here they leave no total.
    """
    if is_box_answer(attempt.example.answer):
        return None
    return attempt.verdict if isinstance(attempt.verdict, Unjudged) else float(attempt.verdict.score > 0.0)


def bleu1(attempt: Attempt) -> float | None:
    """BLEU-1 between the answer and the accepted answer that is nearest, 0 to 1; 0 without an answer, None where it is a box.

    The answer ends at its closing tag, so the tag's own name is not compared, as it is in the official code.
    """
    if is_box_answer(attempt.example.answer):
        return None
    said = attempt.transcript.answer or ""
    return max(sentence_bleu1(accepted, said) for accepted in attempt.example.accepted)


def sentence_bleu1(reference: str, candidate: str) -> float:
    """The share of the candidate's words that the reference has, each as often as there, times the brevity penalty.

    BLEU of Papineni et al. 2002 with unigrams only, for one sentence and one reference, unsmoothed: 0 to 1. Words
    are lower-cased runs of letters and digits.
    """
    wanted, said = (re.findall(r"[^\W_]+", text.lower()) for text in (reference, candidate))
    if not said:
        return 0.0
    shared = sum((Counter(said) & Counter(wanted)).values())
    brevity = min(1.0, math.exp(1.0 - len(wanted) / len(said)))
    return brevity * shared / len(said)


ANSWER_REWARDS: dict[Reward, RewardSpec] = {
    correct: RewardSpec(0.0, 1.0, frozenset({Requirement.WORDS, Requirement.VERDICT})),
    any_credit: RewardSpec(0.0, 1.0, frozenset({Requirement.WORDS, Requirement.VERDICT})),
    bleu1: RewardSpec(0.0, 1.0, frozenset({Requirement.WORDS})),
}
