"""The kinds of alarm, an alarm, what it needs to know of a run, and its line in alarms.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What has gone wrong, as alarms.jsonl names it."""

    REWARD_IS_ZERO = "reward always 0"
    FLAT_GROUPS = "groups without variance"
    REWARD_FELL = "reward fell"
    FORMAT_FELL = "format fell"
    SHORTER = "length collapsed"
    LONGER = "length exploded"
    TRUNCATED = "truncated"
    UNIT = "boxes in another unit"
    FRAME = "boxes in another frame"
    NO_BOXES = "no boxes"
    ENTROPY = "entropy collapsed"
    KL = "KL exploded"
    CLIPPED = "updates clipped"
    GRADIENT = "gradient"
    LOSS = "loss"
    UNJUDGED = "unjudged"
    SKIPPED = "steps skipped"
    FAILED = "rollouts failed"
    SAMPLER = "sampler disagrees"
    DRIFT = "boxes drift"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that went wrong at a step: what was seen, the likely cause and the remedy, on one line."""

    step: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What the alarms need to know of a run to name a cause. `asks_for_boxes`: the prompt does."""

    max_completion_length: int
    frame: str
    asks_for_boxes: bool = True
    num_iterations: int = 1
    beta: float = 0.0


def alarm_row(alarm: Alarm) -> dict[str, Any]:
    """An alarm as a line of alarms.jsonl."""
    return {"step": alarm.step, "alarm": alarm.kind.value, "text": alarm.text}


def resumed_row(step: int) -> dict[str, Any]:
    """The line of alarms.jsonl that says that the run resumed from this step: earlier alarms of later steps are void."""
    return {"step": step, "resumed": True}


def alarms_of(rows: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms in the lines of alarms.jsonl, each once, without those of steps that a resumed run repeated.

    Unknown kinds are left out.
    """
    kinds = {kind.value: kind for kind in Kind}
    found: dict[tuple[int, str], Alarm] = {}
    for row in rows:
        if row.get("resumed"):
            found = {key: alarm for key, alarm in found.items() if alarm.step <= row["step"]}
        elif row.get("alarm") in kinds:
            alarm = Alarm(int(row["step"]), kinds[row["alarm"]], str(row["text"]))
            found[alarm.step, row["alarm"]] = alarm
    return list(found.values())
