"""The README's table of the demo, as Markdown, from the folder of a finished `make demo`: `python scripts/demo_figures.py runs/demo-...`."""

from __future__ import annotations

import argparse
from pathlib import Path

from opengrit.core.errors import RunError
from opengrit.reports.runs import RunView, read_runs, recipe_of
from opengrit.reports.tables import Cell, Table, Unit, compare, written
from opengrit.runs.folder import RunDir

_PLAIN, _BEFORE, _TRAIN, _AFTER = "plain", "before", "train", "after"
_COLUMNS = {"accuracy": "accuracy, %", "grounding_iou": "box overlap (IoU)"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished make demo")
    print("\n".join(table_of(parser.parse_args().run)))


def table_of(run: Path) -> list[str]:
    """The lines of the table. Raises RunError where a part of the demo is missing or was asked something else."""
    asked = (_PLAIN, _BEFORE, _AFTER)
    views = dict(zip(asked, read_runs([run / name for name in asked]), strict=True))
    training = recipe_of(RunDir.open(run / _TRAIN))
    sizes = {len(view.records) for view in views.values()}
    tables = [table for table in compare({n: v.records for n, v in views.items()}) if table.dataset != "all"]
    if len(sizes) != 1:
        raise RunError(
            f"a finished demo has as many answers before as after, {run} has {sizes}; run make demo again"
        )
    steps, seed = training["train"]["max_steps"], training["train"]["seed"]
    model = dict(views[_BEFORE].facts)["model"]
    heads = [
        f"{table.dataset} (n = {_num_rows(views[_BEFORE], table)}): {name}"
        for table in tables
        for name in _COLUMNS.values()
    ]
    labels = {
        _PLAIN: "base, asked plainly (no boxes asked for)",
        _BEFORE: "base, asked to point",
        _AFTER: f"trained ({steps} steps, seed {seed})",
    }
    return [
        f"| {model} | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
        *(
            f"| {labels[name]} | {' | '.join(_cells(tables, place))} |"
            for place, name in enumerate((_PLAIN, _BEFORE, _AFTER))
        ),
    ]


def _num_rows(view: RunView, table: Table) -> int:
    return sum(record.example.dataset == table.dataset for record in view.records)


def _cells(tables: list[Table], place: int) -> list[str]:
    """A run's values in the order of the columns."""
    found = []
    for table in tables:
        for field in _COLUMNS:
            row = table.row(field)
            found.append(_text(row.cells[place], row.measure.unit) if row else "-")
    return found


def _text(cell: Cell, unit: Unit) -> str:
    found = cell.estimate
    if found is None or found.value is None:
        return "-"
    value = written(found.value, unit)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{written(found.low, unit)}, {written(found.high, unit)}]"


if __name__ == "__main__":
    main()
