"""A table in plain words: where one way beats another, by how much, and where no difference is shown."""

from __future__ import annotations

from collections.abc import Sequence

from opengrit.experiments.recipe import Way
from opengrit.experiments.results import COMPARED, IOU, REFERENCE, Block, Column, Difference, TableResult
from opengrit.reports.tables import Unit, signed, written


def findings(table: TableResult) -> list[str]:
    """A sentence or two for each model, data set and compared quantity, from the numbers alone.

    A way wins where the interval of the paired difference does not hold 0; else "no difference is shown". Where the
    reference is not in the table there is nothing to compare, and no finding.
    """
    return [
        text for block in table.blocks for column in COMPARED if (text := _finding(block, column)) is not None
    ]


def _finding(block: Block, column: Column) -> str | None:
    ours = block.way(REFERENCE)
    if ours is None:
        return None
    place = f"{block.model} on {block.dataset}, {column.name}:"
    value = ours.quantities[column.key].pooled.value
    if value is None:
        return f"{place} not measured for {REFERENCE}."
    sentences = [
        f"{place} {REFERENCE} has {_value(value, column)} (n = {ours.quantities[column.key].pooled.n})."
    ]
    differences = [d for d in block.differences if d.column is column]
    if column is IOU and any(d.other is Way.DIRECT for d in differences):
        sentences.append(f"{Way.DIRECT} asks for no boxes and is not compared.")
        differences = [d for d in differences if d.other is not Way.DIRECT]
    beaten = [d for d in differences if d.estimate.clear_of_zero and (d.estimate.value or 0) > 0]
    ahead = [d for d in differences if d.estimate.clear_of_zero and (d.estimate.value or 0) < 0]
    measured = [d for d in differences if d.estimate.low is not None]
    level = [d for d in measured if not d.estimate.clear_of_zero]
    unknown = [d for d in differences if d.estimate.low is None]
    if beaten:
        sentences.append(f"It beats {_list(beaten)}.")
    if ahead:
        sentences.append(f"It loses to {_list(ahead)}.")
    if level:
        sentences.append(f"No difference is shown against {_list(level)}.")
    if unknown:
        sentences.append(f"Too little was measured to compare it with {', '.join(d.other for d in unknown)}.")
    sentences += _controls(block, column)
    return " ".join(sentences)


def _controls(block: Block, column: Column) -> list[str]:
    above: list[str] = []
    not_above: list[str] = []
    for name, of, estimate in block.above_controls:
        if of is not column or estimate.low is None:
            continue
        text = f"{name} ({_difference_text(estimate.value, estimate.low, estimate.high, column)})"
        (above if estimate.low > 0 else not_above).append(text)
    said = []
    if above:
        said.append(f"It lies above {' and '.join(above)}.")
    if not_above:
        said.append(f"It is not shown to lie above {' and '.join(not_above)}.")
    return said


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(
        f"{d.other} ({_difference_text(d.estimate.value, d.estimate.low, d.estimate.high, d.column)})"
        for d in differences
    )


def _difference_text(value: float | None, low: float | None, high: float | None, column: Column) -> str:
    """A difference with its interval: shares in points, overlaps as they are."""
    if value is None or low is None or high is None:
        return "not measured"
    unit = " points" if column.unit is Unit.SHARE else ""
    return (
        f"{ascii_minus(signed(value, column.unit))}{unit}, "
        f"{ascii_minus(signed(low, column.unit))} to {ascii_minus(signed(high, column.unit))}"
    )


def _value(value: float, column: Column) -> str:
    return written(value, column.unit) + (" %" if column.unit is Unit.SHARE else "")


def ascii_minus(text: str) -> str:
    """The text with the typographic minus as a hyphen, which every terminal and LaTeX font has."""
    return text.replace("\u2212", "-")
