"""A table as Markdown, CSV, LaTeX and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from opengrit.evaluation.metrics import Estimate, Pooled
from opengrit.experiments.results import (
    ACCURACY,
    COLUMNS,
    COMPARED,
    IOU,
    REFERENCE,
    Block,
    Column,
    Difference,
    Extra,
    TableResult,
    Training,
    WayResult,
)
from opengrit.experiments.sentences import ascii_minus, findings
from opengrit.reports.plots import Interval, interval_plot
from opengrit.reports.tables import DASH, Cell, Unit, difference_cell, value_cell, written
from opengrit.reports.viewer import asset, render
from opengrit.runs.folder import write_atomically

NAMES = ("table.html", "table.md", "table.csv", "table.tex")
MAJORITY, WHOLE = "control: most frequent answer", "control: whole picture"
_NOT_MEASURED = "no row measures it"


def write_pages(table: TableResult, folder: Path) -> list[Path]:
    """Writes the table in four forms, each whole or not at all; older ones of these names are replaced."""
    texts = dict(zip(NAMES, (html(table), markdown(table), csv_text(table), latex(table)), strict=True))
    for name, text in texts.items():
        write_atomically(folder / name, text.encode("utf-8", "replace").decode("utf-8"))
    return [folder / name for name in texts]


# -- lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: a way with its seeds pooled, one of its seeds, or a control."""

    name: str
    kind: str  # "way", "seed" or "control"
    cells: tuple[Cell, ...]


def lines(block: Block, columns: Sequence[Column]) -> Iterator[Line]:
    """The rows of a block: ways in order, each followed by its seeds where there are several, then the controls."""
    for result in block.ways:
        yield Line(result.way, "way", tuple(_cell(result.quantities[c.key].pooled, c) for c in columns))
        if len(result.seeds) > 1:
            for place, seed in enumerate(result.seeds):
                cells = tuple(_cell(result.quantities[c.key].seeds[place], c) for c in columns)
                yield Line(f"{result.way}, seed {seed}", "seed", cells)
    for name, column, estimate in _controls(block):
        cells = tuple(_cell(estimate, c) if c is column else Cell("") for c in columns)
        yield Line(name, "control", cells)


def _controls(block: Block) -> tuple[tuple[str, Column, Estimate], ...]:
    return ((MAJORITY, ACCURACY, block.majority_answer), (WHOLE, IOU, block.whole_picture_iou))


def _cell(estimate: Estimate, of: Column | Extra) -> Cell:
    return value_cell(estimate, of.unit, _NOT_MEASURED)


def _extras(block: Block) -> list[tuple[str, str, Cell]]:
    """Way, name and value of the quantities that only some data sets have."""
    return [(w.way.value, extra.name, _cell(extra.estimate, extra)) for w in block.ways for extra in w.extras]


def heading(column: Column) -> str:
    """A column's name with its unit."""
    return f"{column.name}, %" if column.unit is Unit.SHARE else column.name


def seeds_text(result: WayResult) -> str:
    """How many runs stand behind a way's numbers, and how far their accuracies lie apart."""
    if len(result.seeds) == 1:
        return "1 run"
    spread = result.quantities["accuracy"].spread
    apart = "" if spread is None else f", accuracies {written(spread, Unit.SHARE)} points apart (s.d.)"
    return f"{len(result.seeds)} seeds{apart}"


def tests_text(difference: Difference) -> str:
    """McNemar's test of each seed, in words; empty where there is none."""
    return "; ".join(
        f"seed {seed}: {test.improved} turned right, {test.worsened} wrong, p = {test.p:.2g}"
        for seed, test in difference.tests
    )


def failed_text(block: Block) -> str:
    """Which ways had rollouts that failed, in words; empty where none had."""
    failed = [f"{w.way} {w.num_failed} of {w.num_asked}" for w in block.ways if w.num_failed]
    return (
        (f"Failed rollouts (left out; the same command asks them again): {', '.join(failed)}.")
        if failed
        else ""
    )


def alarms_text(block: Block) -> str:
    """Which trainings raised which alarms, in words; empty where none did."""
    raised = [
        f"{w.way} seed {seed}: {', '.join(dict.fromkeys(alarm.kind.value for alarm in training.alarms))}"
        for w in block.ways
        for seed, training in w.trainings.items()
        if training.alarms
    ]
    return f"Alarms in training: {'; '.join(raised)}." if raised else ""


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(table: TableResult) -> str:
    """The table as Markdown: findings, a table for each model and data set, differences, notes and facts."""
    parts = ["# Table", "", *(f"* {_plain(text)}" for text in findings(table)), ""]
    for block in table.blocks:
        parts += [*_markdown_block(block, table.columns), ""]
    parts += ["## How to read", "", *(f"* {note}" for note in table.notes), ""]
    parts += ["## Made with", "", *(f"* {name}: {_plain(value)}" for name, value in table.facts)]
    return "\n".join(parts) + "\n"


def _markdown_block(block: Block, columns: Sequence[Column]) -> list[str]:
    head = [
        f"## {_plain(block.model)}, {_plain(block.dataset)}",
        "",
        f"n = {block.num_examples} questions.",
        "",
    ]
    rows = ["| | " + " | ".join(heading(c) for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for line in lines(block, columns):
        name = f"**{line.name}**" if line.kind == "way" else line.name
        rows.append(f"| {name} | " + " | ".join(_text(cell) for cell in line.cells) + " |")
    extras = [f"{way}, {name}: {_text(cell)}." for way, name, cell in _extras(block)]
    said = [text for text in (failed_text(block), alarms_text(block)) if text]
    tail = [*(["", *extras] if extras else []), *(line for text in said for line in ("", text))]
    return [*head, *rows, *tail, *_markdown_differences(block)]


def _markdown_differences(block: Block) -> list[str]:
    if not block.differences:
        return []
    rows = ["", f"{REFERENCE} minus the others, paired by question:", ""]
    rows += [
        "| | " + " | ".join(_in_points(c) for c in COMPARED) + " | McNemar (accuracy) |",
        "|---|---|---|---|",
    ]
    for way, cells, tests in _differences(block):
        rows.append(f"| {way} | {' | '.join(map(_text, cells))} | {tests or DASH} |")
    return rows


def _in_points(column: Column) -> str:
    return f"{column.name}, points" if column.unit is Unit.SHARE else column.name


def _difference(difference: Difference) -> Cell:
    return difference_cell(difference.estimate, difference.column.unit, "not measured on both sides")


def _text(cell: Cell) -> str:
    """A cell in one line: value, interval in brackets."""
    if cell.why or not cell.text:
        return DASH if cell.why else ""
    interval = f" [{cell.interval.replace(' to ', ', ')}]" if cell.n and cell.n > 1 else f" (n = {cell.n})"
    return ascii_minus(cell.text.removesuffix(" %") + interval)


def _plain(text: str) -> str:
    """Text of a person's as Markdown shows it, on one line and without meaning of its own."""
    flat = " ".join(text.split())
    for sign in "\\`*_|<>[]":
        flat = flat.replace(sign, "\\" + sign)
    return flat


# -- CSV -------------------------------------------------------------------------------------------------------------

CSV_HEADER = ("model", "data", "way", "seed", "quantity", "value", "low", "high", "n")


def csv_text(table: TableResult) -> str:
    """Every number of the table, one a line; shares and overlaps are 0 to 1. `seed` is "pooled" or a seed.

    A difference stands under the way "grit-minus-WAY", McNemar's p under the quantity "mcnemar_p" with the number of
    changed answers as n, an alarm under "alarm/KIND" with the step that raised it. What is not measured is empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for block in table.blocks:
        for row in _csv_rows(block):
            writer.writerow((block.model, block.dataset, *row))
    return stream.getvalue()


_Row = tuple[str, str, str, str, str, str, int]


def _csv_rows(block: Block) -> Iterator[_Row]:
    for result in block.ways:
        for column in COLUMNS:
            pooled: Pooled = result.quantities[column.key]
            yield _csv_row(result.way, "pooled", column.key, pooled.pooled)
            for seed, estimate in zip(result.seeds, pooled.seeds, strict=True):
                yield _csv_row(result.way, str(seed), column.key, estimate)
        for extra in result.extras:
            yield _csv_row(result.way, "pooled", extra.key, extra.estimate)
        yield (result.way, "pooled", "failed", str(result.num_failed), "", "", result.num_asked)
        for seed, training in result.trainings.items():
            yield from _csv_training(result.way, str(seed), training)
    yield _csv_row("control", "pooled", "majority_answer", block.majority_answer)
    yield _csv_row("control", "pooled", "whole_picture_iou", block.whole_picture_iou)
    for difference in block.differences:
        name = f"{REFERENCE}-minus-{difference.other}"
        yield _csv_row(name, "pooled", difference.column.key, difference.estimate)
        for seed, test in difference.tests:
            yield (name, str(seed), "mcnemar_p", repr(test.p), "", "", test.improved + test.worsened)


def _csv_training(way: str, seed: str, training: Training) -> Iterator[_Row]:
    """How many alarms a training raised, and the step of each kind's first one. Seconds would differ where it resumed."""
    yield way, seed, "alarms", str(len(training.alarms)), "", "", 1
    for alarm in {a.kind: a for a in reversed(training.alarms)}.values():
        yield way, seed, f"alarm/{alarm.kind.value}", str(alarm.step), "", "", 1


def _csv_row(way: str, seed: str, quantity: str, found: Estimate) -> _Row:
    numbers = (found.value, found.low, found.high)
    value, low, high = ("" if number is None else repr(number) for number in numbers)
    return way, seed, quantity, value, low, high, found.n


# -- LaTeX -----------------------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def latex(table: TableResult) -> str:
    """A tabular for each model: ways in rows, accuracy and IoU of each data set in columns, intervals beneath.

    Needs no package. Seeds are pooled; the CSV file has each of them.
    """
    parts = ["% accuracy in per cent, union IoU; 95 % bootstrap intervals over questions in brackets"]
    for model in dict.fromkeys(block.model for block in table.blocks):
        blocks = [block for block in table.blocks if block.model == model]
        parts += ["", rf"% {_latex(model)}", rf"\begin{{tabular}}{{l{'rr' * len(blocks)}}}", r"\hline"]
        sets = " & ".join(
            rf"\multicolumn{{2}}{{c}}{{{_latex(b.dataset)} ($n={b.num_examples}$)}}" for b in blocks
        )
        parts += [rf"{_latex(model)} & {sets} \\", " & acc. & IoU" * len(blocks) + r" \\", r"\hline"]
        for place, result in enumerate(blocks[0].ways):
            found = [(b.ways[place].quantities[c.key].pooled, c) for b in blocks for c in COMPARED]
            cells = [_latex_cell(estimate, column) for estimate, column in found]
            parts.append(rf"{_latex(result.way)} & {' & '.join(cells)} \\")
        parts.append(r"\hline")
        for control in (MAJORITY, WHOLE):
            of_blocks = [_controls(block) for block in blocks]
            cells = [
                _latex_cell(e, c) if name == control else "" for found in of_blocks for name, c, e in found
            ]
            parts.append(rf"{_latex(control)} & {' & '.join(cells)} \\")
        parts += [r"\hline", r"\end{tabular}"]
    return "\n".join(parts) + "\n"


def _latex_cell(estimate: Estimate, column: Column) -> str:
    if estimate.value is None:
        return "--"
    value = written(estimate.value, column.unit)
    if estimate.low is None or estimate.high is None:
        return value
    return rf"{value} {{\scriptsize[{written(estimate.low, column.unit)}, {written(estimate.high, column.unit)}]}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


# -- HTML ------------------------------------------------------------------------------------------------------------


def html(table: TableResult) -> str:
    """The table as one page that needs nothing else. Names from recipes and files are escaped."""
    return render(
        "table.html.j2",
        title=", ".join(dict.fromkeys(block.model for block in table.blocks)),
        page_css=Markup(asset("page.css")),
        findings=findings(table),
        columns=[heading(column) for column in table.columns],
        compared=[_in_points(column) for column in COMPARED],
        reference=REFERENCE.value,
        blocks=[_html_block(block, table.columns) for block in table.blocks],
        notes=table.notes,
        facts=table.facts,
    )


def _html_block(block: Block, columns: Sequence[Column]) -> dict[str, object]:
    return {
        "model": block.model,
        "dataset": block.dataset,
        "n": block.num_examples,
        "plots": [_plot(block, column) for column in COMPARED],
        "lines": list(lines(block, columns)),
        "runs": [(result.way.value, seeds_text(result)) for result in block.ways],
        "extras": _extras(block),
        "failed": failed_text(block),
        "alarms": alarms_text(block),
        "differences": _differences(block),
    }


def _differences(block: Block) -> list[tuple[str, list[Cell], str]]:
    """What the reference is compared with, how far it is from it in each compared quantity, and McNemar's tests."""
    found = {(d.other, d.column.key): d for d in block.differences}
    return [
        (
            way.value,
            [_difference(found[way, column.key]) for column in COMPARED],
            tests_text(found[way, ACCURACY.key]),
        )
        for way in dict.fromkeys(d.other for d in block.differences)
    ]


def _plot(block: Block, column: Column) -> Markup:
    rows = [
        Interval.of(result.way, result.quantities[column.key].pooled, series=number)
        for number, result in enumerate(block.ways)
    ]
    rows += [
        Interval.of(name, estimate, series=None) for name, of, estimate in _controls(block) if of is column
    ]
    return interval_plot(rows, title=column.name.capitalize(), x_label="mean, 95 % interval")
