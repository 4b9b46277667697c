"""Results by category: each data set, kind of answer and true count by itself, as tables that sort and as plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from opengrit.core.types import Example, Record
from opengrit.evaluation import metrics
from opengrit.evaluation.metrics import Measurements, kind_of_answer, true_count
from opengrit.reports.plots import Interval, interval_plot
from opengrit.reports.tables import ASKED_PLAINLY, DASH, OVERLAP_NAME, Cell, Unit, is_plain, value_cell

MAX_PLOTTED = 12  # categories in one plot; the table has them all
_COLUMNS = (
    ("Accuracy", Unit.SHARE, metrics.raw_score, "not judged"),
    (OVERLAP_NAME, Unit.OVERLAP, metrics.grounding_iou, "no annotated boxes"),
    ("control: whole picture", Unit.OVERLAP, metrics.whole_picture_iou, "no annotated boxes"),
    ("Full format", Unit.SHARE, metrics.follows_format, "failed"),
    ("Boxes per answer", Unit.NUMBER, metrics.num_boxes, "failed"),
)
_OF_POINTING = (1, 3)  # of the columns: they say nothing of a run that was asked plainly
_PLOTTED = (0, 1)  # of the columns
# A category's name, its value for an example, and how that is written: counts are padded so that they sort as numbers.
_CATEGORIES: tuple[tuple[str, Callable[[Example], str | None], Callable[[str], str]], ...] = (
    ("Data set", lambda example: example.dataset, str),
    ("Kind of answer", kind_of_answer, str),
    ("True count", true_count, lambda count: str(int(count))),
)


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category in one run."""

    category: str
    run: str
    num_examples: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The results by one category. `columns` name the cells of each row."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[CategoryRow, ...]
    plots: tuple[Markup, ...]
    note: str  # what the plots leave out


def breakdowns(runs: Mapping[str, Sequence[Record] | Measurements]) -> tuple[Breakdown, ...]:
    """The results by data set, by kind of answer and by true count.

    A category of one value is left out, but for the data set where there are several runs to compare.
    """
    whole = metrics.measured(runs)
    plain = {run: is_plain(one.records) for run, one in whole.items()}
    found = []
    for name, category, written in _CATEGORIES:
        groups = {run: one.parts(category) for run, one in whole.items()}
        values = sorted({value for parts in groups.values() for value in parts})
        if len(values) < 2 and (name != "Data set" or len(runs) < 2):
            continue
        rows = tuple(
            _row(written(v), run, groups[run][v], plain=plain[run])
            for v in values
            for run in runs
            if v in groups[run]
        )
        last = list(runs)[-1] if runs else ""
        shown = [row for row in rows if row.run == last]
        plotted = _PLOTTED if len(values) > 1 else ()
        colour = len(runs) - 1  # the run's own, as in the other plots
        plots = tuple(_plot(shown[:MAX_PLOTTED], column, name, colour) for column in plotted)
        note = f"The plots show {last}."
        if len(shown) > MAX_PLOTTED:
            note = f"The plots show {last}, the first {MAX_PLOTTED} of {len(shown)} categories."
        found.append(Breakdown(name, tuple(c[0] for c in _COLUMNS), rows, plots, note))
    return tuple(found)


def _row(category: str, run: str, part: Measurements, *, plain: bool) -> CategoryRow:
    cells = tuple(
        Cell(DASH, why=ASKED_PLAINLY)
        if plain and place in _OF_POINTING
        else value_cell(part.estimate(quantity), unit, why)
        for place, (_, unit, quantity, why) in enumerate(_COLUMNS)
    )
    return CategoryRow(category, run, part.num_examples, cells)


def _plot(rows: Sequence[CategoryRow], column: int, name: str, colour: int) -> Markup:
    values = [
        Interval.of(f"{row.category}, n = {row.num_examples}", row.cells[column].estimate, series=colour)
        for row in rows
    ]
    title = f"{_COLUMNS[column][0]} by {name.lower()}"
    return interval_plot(values, title=title, x_label="mean, 95 % interval")
