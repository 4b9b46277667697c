"""The report: runs in, one self-contained HTML page out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from opengrit.errors import RunError
from opengrit.report.curves import curves
from opengrit.report.exhibits import MAX_EXHIBITS, Exhibit, change, choose, pair_up
from opengrit.report.pictures import OpenPicture, read_picture
from opengrit.report.plots import Interval, interval_plot
from opengrit.report.runs import RunView
from opengrit.report.tables import CONTROLS, HEADLINES, Cell, Table, Unit, compare
from opengrit.report.viewer import asset, exhibits_html, templates
from opengrit.rundir import write_atomically
from opengrit.types import Record


@dataclass(frozen=True, slots=True)
class Headline:
    """One large number of the page's top: the first run's value, the last run's, and how far they are apart."""

    name: str
    first: Cell
    last: Cell | None
    difference: Cell | None
    unit: str
    control: str


def build_report(runs: Sequence[RunView], *, open_picture: OpenPicture = read_picture) -> str:
    """The page, complete in itself. The same runs and pictures give the same page to the byte.

    Evaluation runs become tables, the first one being what later ones are compared with; training runs become
    curves. Of the examples at most 24 are shown. Everything that came from a model or a file is escaped.
    """
    evaluated = {run.name: run.records for run in runs if run.is_evaluation}
    training = [run for run in runs if not run.is_evaluation]
    tables = compare(evaluated)
    exhibits = pair_up(evaluated or _ends_of_training(training))
    shown = choose(exhibits)
    viewer = exhibits_html(shown, open_picture=open_picture, prefix="examples")
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=_title(runs),
            page_css=Markup(asset("page.css")),
            viewer=viewer,
            viewer_css=Markup(viewer.css),
            viewer_js=Markup(viewer.js),
            runs=runs,
            fact_names=_fact_names(runs),
            evaluations=list(evaluated),
            headlines=_headlines(tables[0]) if tables else (),
            tables=[(table, _interval_plots(table, list(evaluated))) for table in tables],
            training=[(run, curves(run.metrics)) for run in training],
            num_examples=len(exhibits),
            num_shown=len(shown),
            max_shown=MAX_EXHIBITS,
            num_by_change=_count_changes(shown),
        )
    )


def write_report(runs: Sequence[RunView], out: str | Path) -> None:
    """Writes the page to a file, whole or not at all. Raises RunError where the name does not end in .html.

    An older report of that name is replaced; nothing that a run wrote ends in .html.
    """
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"a report's name ends in .html, got {path}; change --out")
    page = build_report(runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"a report's folder must be writable, {path.parent} is not ({error.strerror}); change --out"
        ) from error
    # A model can write half a character; a browser shows its number as the replacement sign.
    write_atomically(path, page.encode("utf-8", "xmlcharrefreplace").decode("utf-8"))


def _title(runs: Sequence[RunView]) -> str:
    return ", ".join(run.name for run in runs) or "no runs"


def _fact_names(runs: Sequence[RunView]) -> list[str]:
    """The names of all facts, in order of first appearance."""
    return list(dict.fromkeys(name for run in runs for name, _ in run.facts))


def _ends_of_training(training: Sequence[RunView]) -> Mapping[str, Sequence[Record]]:
    """Where nothing was evaluated: what the training runs wrote on each example first and last."""
    found: dict[str, Sequence[Record]] = {}
    for run in training:
        steps: dict[tuple[str, str], list[Record]] = {}
        for record in run.records:
            steps.setdefault((record.example.dataset, record.example.id), []).append(record)
        found[f"{run.name}, asked first"] = [records[0] for records in steps.values()]
        found[f"{run.name}, asked last"] = [records[-1] for records in steps.values() if len(records) > 1]
    return found


def _headlines(table: Table) -> tuple[Headline, ...]:
    found = []
    for field in HEADLINES:
        row = table.row(field)
        if row is None:
            continue
        control = table.row(CONTROLS[field]) if field in CONTROLS else None
        beside = control.cells[-1].text if control and not control.cells[-1].why else ""
        found.append(
            Headline(
                name=row.measure.name,
                first=row.cells[0],
                last=row.cells[-1] if len(row.cells) > 1 else None,
                difference=row.last_difference(),
                unit=" points" if row.measure.unit is Unit.SHARE else "",
                control=f"{control.measure.name.removeprefix('control: ')} {beside}"
                if control and beside
                else "",
            )
        )
    return tuple(found)


def _interval_plots(table: Table, names: Sequence[str]) -> tuple[Markup, ...]:
    """One figure a headline quantity: a row for each run, and the control."""
    figures = []
    for field in HEADLINES:
        row = table.row(field)
        if row is None or all(cell.why for cell in row.cells):
            continue
        rows = [_interval(name, cell) for name, cell in zip(names, row.cells, strict=True)]
        control = table.row(CONTROLS[field]) if field in CONTROLS else None
        if control is not None:
            rows.append(_interval(control.measure.name, control.cells[-1]))
        figures.append(interval_plot(rows, title=row.measure.name, x_label="mean, 95 % interval"))
    return tuple(figures)


def _interval(name: str, cell: Cell) -> Interval:
    if cell.estimate is None:
        return Interval(name, None)
    return Interval(name, cell.estimate.value, cell.estimate.low, cell.estimate.high)


def _count_changes(shown: Sequence[Exhibit]) -> str:
    """For example "7 fixed, 5 right both times"."""
    counts = Counter(change(exhibit).value for exhibit in shown)
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())
