"""A table on its way to GRIT's rows: numbered rows of named values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from opengrit.data.problems import Problem
from opengrit.data.tables.settings import Corners, Units


@dataclass(frozen=True, slots=True)
class BoxStyle:
    """How four numbers are a box; None where nothing says it."""

    corners: Corners | None = None
    units: Units | None = None

    def over(self, other: BoxStyle) -> BoxStyle:
        """This style, and the other's where this one says nothing."""
        return BoxStyle(self.corners or other.corners, self.units or other.units)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row. `number` is the one a spreadsheet or an editor shows (1 is a table's header), else its place from 1."""

    number: int
    values: dict[str, Any]
    style: BoxStyle = BoxStyle()  # of its boxes, where its format says it


@dataclass(frozen=True, slots=True)
class Table:
    """A source, opened. `rows` can be walked through more than once; `file` is what messages and ids call it."""

    file: str
    rows: Iterable[RawRow]
    problems: tuple[Problem, ...] = ()  # rows that are none
    notes: tuple[str, ...] = field(default=())  # what was done that a person would want to know
