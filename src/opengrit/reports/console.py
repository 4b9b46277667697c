"""The tables of runs beside each other on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from opengrit.core.escaping import harmless
from opengrit.core.types import Record
from opengrit.reports.tables import HEADLINES, Cell, Table, compare

_WIDE = 110  # columns of a terminal that hold three values with their intervals in one line each
_MOST_BESIDE = 2  # runs whose differences fit beside their values
_CAPTION = "Means with 95 % bootstrap intervals over n examples. Differences are paired, shares in points."


def print_summary(runs: Mapping[str, Sequence[Record]], console: Console) -> None:
    """Prints one table a data set: each run's values with intervals, how the runs differ, and n."""
    print_tables(compare(runs), list(runs), console)


def print_tables(tables: Sequence[Table], runs: Sequence[str], console: Console) -> None:
    """Prints tables of these runs. The differences of three runs and more are a table of their own below, of the most telling lines."""
    names = [_shown(name) for name in runs]
    for table in tables:
        pairs = [f"{names[later]} - {names[earlier]}" for earlier, later in table.pairs]
        beside = len(names) <= _MOST_BESIDE
        in_a_line = beside or console.width >= _WIDE
        shown = _table(_shown(table.dataset), [*names, *(pairs if beside else ())])
        for row in table.rows:
            cells = (*row.cells, *row.differences) if beside else row.cells
            shown.add_row(row.measure.name, *[_written(cell, in_a_line) for cell in cells], _sizes(cells))
        shown.add_row("rollouts failed", *table.failed, *["" for _ in pairs if beside], "")
        if not beside:
            console.print(shown)
            shown = _table(f"{_shown(table.dataset)}, differences", pairs)
            for row in filter(None, map(table.row, HEADLINES)):
                cells = row.differences
                shown.add_row(row.measure.name, *[_written(cell, in_a_line) for cell in cells], _sizes(cells))
        shown.caption = _CAPTION
        console.print(shown)


def _table(title: str, columns: Sequence[str]) -> RichTable:
    shown = RichTable(title=title, title_justify="left", caption_justify="left")
    shown.add_column("")
    for column in (*columns, "n"):
        shown.add_column(column, justify="right")
    return shown


def _shown(name: str) -> str:
    """A name from a file or a folder: neither markup nor what steers the terminal."""
    return escape(harmless(name))


def _written(cell: Cell, in_a_line: bool) -> str:
    if cell.why:
        return f"{cell.text} {escape(cell.why)}"
    text = f"{cell.text} ({cell.interval})" if in_a_line else f"{cell.text}\n{cell.interval}"
    return f"[bold]{text}[/bold]" if cell.clear else text


def _sizes(cells: Sequence[Cell]) -> str:
    """The examples of each value in the order of the columns; one number where all are of the same size."""
    sizes = [str(cell.n) for cell in cells if cell.n is not None]
    return sizes[0] if len(set(sizes)) == 1 else " / ".join(sizes)
