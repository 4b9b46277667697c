"""What the doctor found: one line each, in order, with what to change; and whether a run would be wasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Level(Enum):
    """How serious a finding is."""

    OK = "ok"
    WARN = "warn"  # the run works, and something about it is worth a look
    FAIL = "fail"  # the run would not start, or be wasted
    SKIPPED = "skipped"  # not looked at, and why


class Area(Enum):
    """What the doctor looks at, in this order; an area makes its findings."""

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

    def ok(self, name: str, found: str) -> Finding:
        return Finding(self, name, Level.OK, found)

    def warn(self, name: str, found: str, remedy: str) -> Finding:
        return Finding(self, name, Level.WARN, found, remedy)

    def fail(self, name: str, found: str, remedy: str) -> Finding:
        return Finding(self, name, Level.FAIL, found, remedy)

    def error(self, name: str, error: Exception) -> Finding:
        """One of our errors as a failure."""
        return self.fail(name, *split_message(str(error)))

    def skipped(self, name: str, why: str) -> Finding:
        return Finding(self, name, Level.SKIPPED, why)

    def graded(
        self,
        name: str,
        found: str,
        remedy: str,
        *,
        fails: bool,
        warns: bool,
        why: str = "",
        why_warn: str = "",
    ) -> Finding:
        """FAIL where it fails, else WARN where it warns, else OK; `why` (of a warning: `why_warn`) follows what was found."""
        if not (fails or warns):
            return self.ok(name, found)
        reason = why if fails else why_warn or why
        text = f"{found}: {reason}" if reason else found
        return self.fail(name, text, remedy) if fails else self.warn(name, text, remedy)


def split_message(message: str) -> tuple[str, str]:
    """One of our error messages as what was found and the remedy, which is its last clause, after a semicolon."""
    found, semicolon, remedy = " ".join(message.split()).rpartition("; ")
    return (found, remedy) if semicolon else (remedy, "")


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
        return asdict(self) | {"area": self.area.value, "level": self.level.value}


def count(findings: Sequence[Finding], level: Level) -> int:
    """How many findings are of a level."""
    return sum(finding.level is level for finding in findings)


def would_be_wasted(findings: Sequence[Finding]) -> bool:
    """Whether a run should not be started as it is."""
    return count(findings, Level.FAIL) > 0
