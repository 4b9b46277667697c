"""What runs did to their boxes, and when the alarm "boxes drift" would say so: `python scripts/drift_alarm.py RUN...`.

Reads metrics.jsonl and evaluations.jsonl of training runs; no model is loaded. A way to try thresholds on runs that are done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from opengrit.runs.alarms import Kind, Setting, alarms, rows_of
from opengrit.runs.folder import RunDir

_COLUMNS = ("accuracy", "grounding_iou", "format", "covered_area", "boxes")


def main() -> None:
    """Print a table and a verdict for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of opengrit train")
    parser.add_argument("--every", type=int, default=5, help="steps between the lines that are printed")
    arguments = parser.parse_args()
    for path in arguments.runs:
        run = RunDir.open(path)
        rows = rows_of(run.metrics(), run.evaluations())
        print(f"{path}")
        _print_steps(rows, every=arguments.every)
        _print_evaluations(list(run.metrics()))
        found = [one for one in alarms(rows, Setting(0, "", asks_for_boxes=False)) if one.kind is Kind.DRIFT]
        print(
            *(f"  DRIFTS, step {one.step}: {one.text}" for one in found),
            *([] if found else ["  no drift"]),
            sep="\n",
        )


def _print_steps(rows: list[Any], *, every: int) -> None:
    print("  training:   step  accuracy  IoU    format  area of a box")
    for row in rows:
        if "loss" in row and row["step"] % every == 0 and all(row.get(key) is not None for key in _COLUMNS):
            area = row["covered_area"] / row["boxes"] if row["boxes"] else 0.0
            print(
                f"  {row['step']:>16}  {row['accuracy']:.3f}     {row['grounding_iou']:.3f}  {row['format']:.2f}    {area:.4f}"
            )


def _print_evaluations(rows: list[Any]) -> None:
    for row in rows:
        for key in row:
            name = key.removesuffix("/accuracy")
            if key.startswith("eval/") and name != key:
                wanted = ("accuracy", "grounding_iou", "covered_area", "boxes", "necessity", "sufficiency")
                values = {one: row.get(f"{name}/{one}") for one in wanted}
                shown = "  ".join(f"{one} {value:.3f}" for one, value in values.items() if value is not None)
                print(f"  step {row['step']:>4}  {name.removeprefix('eval/')}: {shown}")


if __name__ == "__main__":
    main()
