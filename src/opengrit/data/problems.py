"""What is wrong with a row: a problem of one field, and each different one told once with all its lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from opengrit.core.escaping import shortened


class Severity(Enum):
    """Whether a row can be used in spite of a problem."""

    ERROR = "error"  # the row cannot be used, loading fails
    WARNING = "warning"  # the row is used, after the repair the message names


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of one row. `line` starts at 1; `field` is "" where the whole line is meant."""

    file: str
    line: int
    field: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f": {shortened(self.field)}" if self.field else "")
        return f"{place}: {self.message}"


def told_once(problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Each different problem, as the first row has it, and its sentence with all other lines that have it too."""
    alike: dict[tuple[Severity, str, str], list[Problem]] = {}
    for problem in problems:
        field_name = re.sub(r"\[\d+\]", "", problem.field)
        alike.setdefault((problem.severity, field_name, problem.message), []).append(problem)
    sentences = []
    for first, *more in alike.values():
        lines = sorted({problem.line for problem in more} - {first.line})
        many = "lines have" if len(lines) > 1 else "line has"
        same = f" ({len(lines)} more {many} the same problem: {_ranges(lines)})" if lines else ""
        sentences.append((first, f"{first}{same}"))
    return sentences


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers, those in a row as their first and last: 2, 5-9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
