"""The report: runs in, one self-contained HTML page out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from opengrit.core.errors import RunError
from opengrit.core.types import Record
from opengrit.evaluation.metrics import grounding_iou
from opengrit.reports.answers import answer_list
from opengrit.reports.categories import breakdowns
from opengrit.reports.curves import curves
from opengrit.reports.evidence import Evidence, show_evidence
from opengrit.reports.pictures import OpenPicture, read_picture
from opengrit.reports.plots import Interval, histogram, interval_plot, scatter
from opengrit.reports.runs import RunView
from opengrit.reports.seeds import seed_dots, seed_groups
from opengrit.reports.selected_examples import MAX_EXHIBITS, Exhibit, change, choose, pair_up
from opengrit.reports.tables import CONTROLS, HEADLINES, Cell, Row, Table, Unit, compare
from opengrit.reports.viewer import asset, exhibits_html, templates
from opengrit.runs.folder import write_atomically


@dataclass(frozen=True, slots=True)
class Headline:
    """One large number of the page's top: the first run's value, the last run's, and how far they are apart."""

    name: str
    first: Cell
    last: Cell | None
    difference: Cell | None
    unit: str
    control: str


def build_report(sources: Sequence[RunView | Evidence], *, open_picture: OpenPicture = read_picture) -> str:
    """The page, complete in itself. The same runs and pictures give the same page to the byte.

    Evaluation runs become tables, the first one being what later ones are compared with; training runs become
    curves, runs of probes a section of their own. Of the examples at most 24 are shown with their pictures; all of them
    stand in a list. Everything that came from a model or a file is escaped.
    """
    runs = [source for source in sources if isinstance(source, RunView)]
    evidence = [source for source in sources if isinstance(source, Evidence)]
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
            title=_title(sources),
            page_css=Markup(asset("page.css")),
            page_js=Markup(asset("page.js")),
            answers=answer_list(exhibits, shown, prefix="examples"),
            breakdowns=breakdowns(evaluated),
            histograms=_histograms(evaluated, tables[0]) if tables else (),
            seeds=seed_groups(runs),
            seed_plot=_seed_plot(runs),
            evidence=[show_evidence(one) for one in evidence],
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


def write_report(runs: Sequence[RunView | Evidence], out: str | Path) -> None:
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


def _title(runs: Sequence[RunView | Evidence]) -> str:
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
        found.append(
            Headline(
                name=row.measure.name,
                first=row.cells[0],
                last=row.cells[-1] if len(row.cells) > 1 else None,
                difference=row.last_difference(),
                unit=" points" if row.measure.unit is Unit.SHARE else "",
                control=", ".join(
                    f"{row.measure.name.removeprefix('control: ')} {row.cells[-1].text}"
                    for row in _controls(table, field)
                    if not row.cells[-1].why
                ),
            )
        )
    return tuple(found)


def _controls(table: Table, field: str) -> list[Row]:
    """The lines of what stands beside a measure for comparison."""
    rows = [table.row(control) for control in CONTROLS.get(field, ())]
    return [row for row in rows if row is not None]


def _histograms(evaluated: Mapping[str, Sequence[Record]], table: Table) -> tuple[Markup, ...]:
    """How the box IoUs of each run are spread, with the means of the table; none where no row has boxes."""
    figures = []
    lines = [("mean", table.row("grounding_iou"))]
    lines += [(row.measure.name, row) for row in _controls(table, "grounding_iou")]
    for place, (name, records) in enumerate(evaluated.items()):
        ious = [iou for record in records if (iou := grounding_iou(record)) is not None]
        means = [
            (text, found.value)
            for text, row in lines
            if row is not None
            and (found := row.cells[place].estimate) is not None
            and found.value is not None
        ]
        if ious:
            title = f"Box IoU, {name}, n = {len(ious)}"
            figures.append(histogram(ious, means, title=title, x_label="box IoU"))
    return tuple(figures)


def _seed_plot(runs: Sequence[RunView]) -> Markup:
    groups = seed_groups(runs)
    return scatter(
        seed_dots(runs),
        title="Each seed by itself",
        x_label="accuracy",
        y_label="box IoU",
        names=[group.name for group in groups],
    )


def _interval_plots(table: Table, names: Sequence[str]) -> tuple[Markup, ...]:
    """One figure a headline quantity: a row for each run, and the control."""
    figures = []
    for field in HEADLINES:
        row = table.row(field)
        if row is None or all(cell.why for cell in row.cells):
            continue
        rows = [_interval(name, cell) for name, cell in zip(names, row.cells, strict=True)]
        rows += [_interval(control.measure.name, control.cells[-1]) for control in _controls(table, field)]
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
