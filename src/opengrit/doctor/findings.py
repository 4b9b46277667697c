"""What the doctor found: one line each, in order of looking, with what to change; and whether a run would be wasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Level(Enum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"  # the run works, and something about it is worth a look
    FAIL = "fail"  # the run would not start, or be wasted
    SKIPPED = "skipped"  # not looked at, and why


class Area(Enum):
    """What was looked at, in this order."""

    ENVIRONMENT = "environment"
    RECIPE = "recipe"
    DATA = "data"
    MODEL = "model"
    PROMPTS = "prompts and boxes"
    SAMPLES = "samples of the base"
    JUDGE = "judge"
    MEMORY = "memory"
    DISK = "disk"
    PROCESSES = "processes"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: its short name, what was found, and what to change where something is wrong."""

    area: Area
    name: str
    level: Level
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as `opengrit doctor --json` prints it."""
        return {
            "area": self.area.value,
            "name": self.name,
            "level": self.level.value,
            "found": self.found,
            "remedy": self.remedy,
        }


def count(findings: Sequence[Finding], level: Level) -> int:
    """How many findings are of a level."""
    return sum(finding.level is level for finding in findings)


def would_be_wasted(findings: Sequence[Finding]) -> bool:
    """Whether a run should not be started as it stands."""
    return count(findings, Level.FAIL) > 0
