"""The report: runs in, one self-contained HTML page out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from opengrit.core.collector import paused_collector
from opengrit.core.errors import RunError
from opengrit.core.types import Record
from opengrit.evaluation.metrics import Measurements, grounding_iou, measured
from opengrit.evaluation.metrics.estimates import key_of
from opengrit.reports.answers import answer_list
from opengrit.reports.categories import breakdowns
from opengrit.reports.curves import curves
from opengrit.reports.pictures import OpenPicture, read_picture
from opengrit.reports.plots import Interval, histogram, interval_plot, scatter
from opengrit.reports.probe_results import ProbeResults, show_probe_results
from opengrit.reports.runs import RunView
from opengrit.reports.seeds import seed_dots, seed_groups
from opengrit.reports.selected_examples import MAX_EXAMPLES, change, choose, pair_up
from opengrit.reports.tables import CONTROLS, HEADLINES, Row, Table, compare, is_plain
from opengrit.reports.viewer import asset, examples_html, render
from opengrit.runs.folder import write_atomically


@dataclass(frozen=True, slots=True)
class Headline:
    """One large number of the page's top: a line of the first table, and the values of its controls."""

    row: Row
    control: str


@dataclass(frozen=True, slots=True)
class Report:
    """The page, and the tables of its evaluation runs, as a terminal prints them beside each other."""

    page: str
    runs: tuple[str, ...]
    tables: tuple[Table, ...]


def build_report(
    sources: Sequence[RunView | ProbeResults], *, open_picture: OpenPicture = read_picture
) -> str:
    """The page, complete in itself. The same runs and pictures give the same page to the byte."""
    return make_report(sources, open_picture=open_picture).page


@paused_collector()
def make_report(
    sources: Sequence[RunView | ProbeResults], *, open_picture: OpenPicture = read_picture
) -> Report:
    """The page and its tables; each quantity is asked of each record once, for all parts of the page.

    Evaluation runs become tables, the first one being what later ones are compared with; training runs become
    curves, runs of probes a section of their own. At most 24 examples are shown with their pictures; a list has them
    all. Everything that came from a model or a file is escaped.
    """
    runs = [source for source in sources if isinstance(source, RunView)]
    evidence = [source for source in sources if isinstance(source, ProbeResults)]
    evaluated = {run.name: run.records for run in runs if run.is_evaluation}
    columns = measured(evaluated)
    tables = compare(columns)
    training = [run for run in runs if not run.is_evaluation]
    examples = pair_up(evaluated or _ends_of_training(training))
    shown = choose(examples)
    groups, counts = seed_groups(runs), Counter(change(answered) for answered in shown)
    viewer = examples_html(shown, open_picture=open_picture, prefix="examples")
    page = render(
        "page.html.j2",
        title=", ".join(source.name for source in sources) or "no runs",
        page_css=Markup(asset("page.css")),
        page_js=Markup(asset("page.js")),
        answers=answer_list(examples, shown, prefix="examples"),
        breakdowns=breakdowns(columns),
        histograms=_histograms(columns, tables[0]) if tables else (),
        seeds=groups,
        seed_plot=scatter(
            seed_dots(runs),
            title="Each seed by itself",
            x_label="accuracy",
            y_label="overlap (IoU)",
            names=[group.name for group in groups],
        ),
        evidence=[show_probe_results(one) for one in evidence],
        viewer=viewer,
        viewer_css=Markup(viewer.css),
        viewer_js=Markup(viewer.js),
        runs=runs,
        fact_names=list(dict.fromkeys(name for run in runs for name, _ in run.facts)),
        evaluations=list(evaluated),
        headlines=_headlines(tables[0]) if tables else (),
        telling=[name for field in HEADLINES for name in (field, *CONTROLS.get(field, ()))],
        tables=[(table, _interval_plots(table, list(evaluated))) for table in tables],
        training=[(run, curves(run.metrics)) for run in training],
        num_examples=len(examples),
        num_shown=len(shown),
        max_shown=MAX_EXAMPLES,
        num_by_change=", ".join(f"{number} {kind.value}" for kind, number in counts.items()),
    )
    return Report(page, tuple(evaluated), tables)


def write_report(runs: Sequence[RunView | ProbeResults], out: str | Path) -> Report:
    """Writes the page to a file, whole or not at all, and returns it. Raises RunError where the name does not end in .html.

    An older report of that name is replaced; nothing that a run wrote ends in .html.
    """
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"a report's name ends in .html, got {path}; change --out")
    report = make_report(runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"a report's folder must be writable, {path.parent} is not ({error.strerror}); change --out"
        ) from error
    # A model can write half a character; a browser shows its number as the replacement sign.
    write_atomically(path, report.page.encode("utf-8", "xmlcharrefreplace").decode("utf-8"))
    return report


def _ends_of_training(training: Sequence[RunView]) -> Mapping[str, Sequence[Record]]:
    """Where nothing was evaluated: the first and the last reply of the training runs on each example."""
    found: dict[str, Sequence[Record]] = {}
    for run in training:
        steps: dict[tuple[str, str], list[Record]] = {}
        for record in run.records:
            steps.setdefault(key_of(record.example), []).append(record)
        found[f"{run.name}, asked first"] = [records[0] for records in steps.values()]
        found[f"{run.name}, asked last"] = [records[-1] for records in steps.values() if len(records) > 1]
    return found


def _headlines(table: Table) -> tuple[Headline, ...]:
    found = []
    for field in HEADLINES:
        row = table.row(field)
        if row is None:
            continue
        controls = [
            f"{control.measure.name.removeprefix('control: ')} {control.cells[-1].text}"
            for control in _controls(table, field)
            if not control.cells[-1].why
        ]
        found.append(Headline(row, ", ".join(controls)))
    return tuple(found)


def _controls(table: Table, field: str) -> list[Row]:
    """The lines of a measure's controls."""
    rows = [table.row(control) for control in CONTROLS.get(field, ())]
    return [row for row in rows if row is not None]


def _histograms(evaluated: Mapping[str, Measurements], table: Table) -> tuple[Markup, ...]:
    """How the overlaps of each run are spread, with the means of the table; none where no row has boxes."""
    figures = []
    lines = [("mean", table.row("grounding_iou"))]
    lines += [(row.measure.name, row) for row in _controls(table, "grounding_iou")]
    for place, (name, one) in enumerate(evaluated.items()):
        ious = [iou for iou in one.column(grounding_iou).tolist() if not math.isnan(iou)]
        means = [
            (text, found.value)
            for text, row in lines
            if row is not None
            and (found := row.cells[place].estimate) is not None
            and found.value is not None
        ]
        if ious and not is_plain(one.records):
            title = f"Overlap with the annotation, {name}, n = {len(ious)}"
            figures.append(histogram(ious, means, title=title, x_label="overlap (IoU)", series=place))
    return tuple(figures)


def _interval_plots(table: Table, names: Sequence[str]) -> tuple[Markup, ...]:
    """One figure a headline quantity: a row for each run, and the control."""
    figures = []
    for field in HEADLINES:
        row = table.row(field)
        if row is None or all(cell.why for cell in row.cells):
            continue
        rows = [
            Interval.of(name, cell.estimate, series=number)
            for number, (name, cell) in enumerate(zip(names, row.cells, strict=True))
        ]
        rows += [
            Interval.of(c.measure.name, c.cells[-1].estimate, series=None) for c in _controls(table, field)
        ]
        figures.append(interval_plot(rows, title=row.measure.name, x_label="mean, 95 % interval"))
    return tuple(figures)
