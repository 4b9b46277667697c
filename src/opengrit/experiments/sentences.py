"""A table in plain words: where one way beats another, by how much, and where no difference is shown."""

from __future__ import annotations

from collections.abc import Sequence

from opengrit.evaluation.metrics import Estimate
from opengrit.experiments.results import COMPARED, IOU, REFERENCE, Block, Column, Difference, TableResult
from opengrit.experiments.ways import Way
from opengrit.reports.tables import signed, written


def findings(table: TableResult) -> list[str]:
    """A sentence or two for each model, data set and compared quantity, from the numbers alone.

    A way wins where the interval of the paired difference does not hold 0; else "no difference is shown". Where the
    reference is not in the table there is nothing to compare, and no finding.
    """
    found = [_finding(block, column) for block in table.blocks for column in COMPARED]
    return [text for text in found if text is not None]


def _finding(block: Block, column: Column) -> str | None:
    ours = block.way(REFERENCE)
    if ours is None:
        return None
    place = f"{block.model} on {block.dataset}, {column.name}:"
    pooled = ours.quantities[column.key].pooled
    if pooled.value is None:
        return f"{place} not measured for {REFERENCE}."
    value = written(pooled.value, column.unit) + column.unit.after_value
    sentences = [f"{place} {REFERENCE} has {value} (n = {pooled.n})."]
    differences = [d for d in block.differences if d.column is column]
    if column is IOU and any(d.other is Way.DIRECT for d in differences):
        sentences.append(f"{Way.DIRECT} asks for no boxes and is not compared.")
        differences = [d for d in differences if d.other is not Way.DIRECT]
    unknown = [d for d in differences if d.estimate.low is None]
    for text, found in (
        ("It beats", [d for d in differences if d.estimate.above_zero]),
        ("It loses to", [d for d in differences if d.estimate.below_zero]),
        (
            "No difference is shown against",
            [d for d in differences if not d.estimate.clear_of_zero and d not in unknown],
        ),
    ):
        if found:
            sentences.append(f"{text} {_list(found)}.")
    if unknown:
        sentences.append(f"Too few results to compare it with {', '.join(d.other for d in unknown)}.")
    sentences += _controls(block, column)
    return " ".join(sentences)


def _controls(block: Block, column: Column) -> list[str]:
    above: list[str] = []
    not_above: list[str] = []
    for name, of, estimate in block.above_controls:
        if of is not column or estimate.low is None:
            continue
        text = f"{name} ({_difference_text(estimate, column)})"
        (above if estimate.above_zero else not_above).append(text)
    found = (("It lies above", above), ("It is not shown to be above", not_above))
    return [f"{text} {' and '.join(names)}." for text, names in found if names]


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{d.other} ({_difference_text(d.estimate, d.column)})" for d in differences)


def _difference_text(found: Estimate, column: Column) -> str:
    """A difference with its interval: shares in points, overlaps as they are."""
    value, low, high = found.value, found.low, found.high
    if value is None or low is None or high is None:
        return "not measured"
    return (
        f"{ascii_minus(signed(value, column.unit))}{column.unit.after_difference}, "
        f"{ascii_minus(signed(low, column.unit))} to {ascii_minus(signed(high, column.unit))}"
    )


def ascii_minus(text: str) -> str:
    """The text with the typographic minus as a hyphen, which every terminal and LaTeX font has."""
    return text.replace("\u2212", "-")
