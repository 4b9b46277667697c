"""`opengrit records`: a run's records in other programs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from opengrit.cli import options


def records(
    run: Annotated[Path, typer.Argument(help="Run folder of eval, train or probe.")],
    to: Annotated[
        Literal["coco", "fiftyone", "label-studio", "csv", "parquet", "jsonl"],
        options.output(help="Format to write."),
    ],
    out: Annotated[Path, options.output(help="New file (csv, parquet, jsonl) or new folder (the others).")],
    images: Annotated[
        Path | None,
        options.data(metavar="FOLDER", help="Picture folder, if it has moved since the run."),
    ] = None,
) -> None:
    """Write a run's answers and boxes in the format of another program.

    csv, parquet and jsonl have one row a record; docs/records.md lists the columns. coco has ground truth and results for
    pycocotools, label-studio has tasks to import, fiftyone has a dataset folder. Only coco copies the pictures; the others
    name them. Nothing is overwritten.

    Examples:

        opengrit records mine/tested --to csv --out tested.csv

        opengrit records mine/tested --to coco --out tested-coco
    """
    from opengrit.converters.formats import convert

    done = convert(run, to, out, images=images)
    typer.echo(f"{done.num_records} records: {done.path}")
