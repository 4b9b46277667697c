"""`opengrit records`: a run's records in other programs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def records(
    run: Annotated[Path, typer.Argument(help="Run folder of eval, train or probe.")],
    to: Annotated[
        Literal["coco", "fiftyone", "label-studio", "csv", "parquet", "jsonl"],
        typer.Option(help="Format to write."),
    ],
    out: Annotated[Path, typer.Option(help="New file (csv, parquet, jsonl) or folder (the others).")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures, where they are no longer where the run took them from."),
    ] = None,
) -> None:
    """Write what a run's model answered in the format of another program.

    csv, parquet and jsonl have one row a record, with the columns that docs/records.md lists; coco has a ground truth and
    results for pycocotools; label-studio has tasks to import; fiftyone has a dataset's folder. Pictures are named, not copied, but for coco.
    Nothing is overwritten.

    Examples:

        opengrit records runs/count --to csv --out count.csv

        opengrit records runs/count --to coco --out count-coco
    """
    from opengrit.converters.formats import convert

    done = convert(run, to, out, images=images)
    typer.echo(f"{done.num_records} records: {done.path}")
