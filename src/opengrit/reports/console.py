"""The before-and-after table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opengrit.core.escaping import harmless
from opengrit.core.types import Record
from opengrit.reports.tables import Cell, Row, compare

_CAPTION = "In brackets 95 % bootstrap intervals over n examples. Differences are paired, shares in points."


def print_summary(runs: Mapping[str, Sequence[Record]], console: Console) -> None:
    """Prints one table a data set: each run's values with intervals, how later runs differ from the first, and n."""
    names = list(runs)
    for table in compare(runs):
        shown = Table(title=_shown(table.dataset), title_justify="left", caption_justify="left")
        shown.add_column("")
        for name in names:
            shown.add_column(_shown(name), justify="right")
        for name in names[1:]:
            shown.add_column(f"{_shown(name)} - {_shown(names[0])}", justify="right")
        shown.add_column("n", justify="right")
        for row in table.rows:
            cells = [_written(cell) for cell in (*row.cells, *row.differences)]
            shown.add_row(row.measure.name, *cells, _sizes(row))
        shown.add_row("rollouts failed", *table.failed, *["" for _ in names[1:]], "")
        shown.caption = _CAPTION
        console.print(shown)


def _shown(name: str) -> str:
    """A name from a file or a folder: neither markup nor what steers the terminal."""
    return escape(harmless(name))


def _written(cell: Cell) -> str:
    if cell.why:
        return f"{cell.text} {escape(cell.why)}"
    text = f"{cell.text} ({cell.interval})"
    return f"[bold]{text}[/bold]" if cell.clear else text


def _sizes(row: Row) -> str:
    """The examples of each value in the order of the columns; one number where all are of the same size."""
    sizes = [str(cell.n) for cell in (*row.cells, *row.differences) if cell.n is not None]
    return sizes[0] if len(set(sizes)) == 1 else " / ".join(sizes)
