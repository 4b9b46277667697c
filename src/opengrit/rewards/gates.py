"""Gates: what must hold of an attempt before a reward pays anything.

A bonus for boxes that is paid on wrong answers too inflates boxes, which is why CGPO and DeepEyes pay theirs for right answers
only; DeepEyesV2 takes an answer of 300 characters or more for wrong, because long ones talk a judge round.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from opengrit.core.types import Unjudged
from opengrit.judges.answers import is_box_answer
from opengrit.rewards.format import keeps_format
from opengrit.rewards.measuring import Value
from opengrit.rewards.protocol import Attempt

LONGEST_ANSWER = 300  # characters: an answer of as many is too long (DeepEyesV2's guard)


class Gate(StrEnum):
    """What must hold."""

    RIGHT = "right"  # the judge takes the answer for right
    FORMAT = "format"  # the full format holds, as `evaluation.metrics.follows_format` reads it
    SHORT = "short"  # the answer has fewer than 300 characters


def is_open(gate: Gate, attempt: Attempt) -> bool | Unjudged | None:
    """Whether a gate is open; Unjudged where no judge could say, None where there is nothing to say (the answer is a box)."""
    match gate:
        case Gate.RIGHT if is_box_answer(attempt.example.answer):
            return None
        case Gate.RIGHT:
            return attempt.verdict if isinstance(attempt.verdict, Unjudged) else attempt.verdict.correct
        case Gate.FORMAT:
            return keeps_format(attempt.example, attempt.transcript)
        case Gate.SHORT:
            return len((attempt.transcript.answer or "").strip()) < LONGEST_ANSWER


def gated(value: Value, gates: Sequence[Gate], attempt: Attempt) -> Value:
    """What a reward of this value pays behind its gates: 0 where one is closed; else unjudged where one is, else the value.

    A value that says nothing about the row, or could not be measured, stays so.
    """
    if value is None or isinstance(value, Unjudged):
        return value
    states = [is_open(gate, attempt) for gate in gates]
    if None in states:
        return None
    if False in states:
        return 0.0
    return next((state for state in states if isinstance(state, Unjudged)), value)
