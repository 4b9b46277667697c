"""`opengrit data import`: a table, a data set of the hub or another trainer's file as GRIT's rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from opengrit.cli import options
from opengrit.core.errors import RecipeError
from opengrit.core.escaping import harmless

if TYPE_CHECKING:
    from opengrit.data.importing import Imported
    from opengrit.data.tables import TableSettings

_table = partial(Option, rich_help_panel="Columns and boxes")
SourceName = Annotated[
    str,
    Argument(
        metavar="SOURCE",
        help="File (.csv, .tsv, .xlsx, .parquet, .json, .jsonl), folder saved by datasets, or hub data set owner/name[:split].",
    ),
]
Images = Annotated[
    Path | None,
    options.data(
        metavar="FOLDER", help="Picture folder (default: the folder of SOURCE, by the pictures' exact names)."
    ),
]
ColumnNames = Annotated[
    str | None,
    _table(
        "--columns",
        metavar="PART=COLUMN,...",
        help="Columns of picture, question, answer, boxes, also_accepted; the others are found by name and content.",
    ),
]
Boxes = Annotated[
    str | None, _table("--boxes", metavar="xyxy|xywh", help="Boxes are corners, or x, y, width, height.")
]
BoxUnits = Annotated[
    str | None,
    _table(
        "--box-units",
        metavar="pixels|percent|unit|thousand",
        help="Boxes are in pixels, per cent, 0 to 1, or 0 to 1000.",
    ),
]
Coco = Annotated[
    str,
    _table(
        "--coco",
        metavar="counting|boxes",
        help="Questions to make of COCO annotations: how many of a kind, or where the one of a kind is.",
    ),
]
SkipBadRows = Annotated[
    bool, options.data("--skip-bad-rows", help="Leave out rows that cannot be used, and name them.")
]


def import_rows(
    source: SourceName,
    out: Annotated[
        Path,
        options.output(metavar="FILE", help="New .jsonl file; pictures stored in SOURCE go beside it."),
    ],
    images: Images = None,
    columns: ColumnNames = None,
    boxes: Boxes = None,
    box_units: BoxUnits = None,
    coco: Coco = "counting",
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Convert a table to GRIT's rows: spreadsheets, hub data sets, COCO annotations, other trainers' files.

    A row is a picture, a question, an answer and optional boxes. Columns are found by name and by content. Picture names
    may be paths of another machine, in another case, or without extension. Either all rows are written or none: bad rows
    are listed with their number (a table's header is row 1). Nothing is overwritten.

    Examples:

        opengrit data import sheet.xlsx --images photos/ --out mine.jsonl

        opengrit data import boxes.csv --images photos/ --out mine.jsonl \\
            --columns picture=file,question=ask --boxes xywh --box-units percent

        opengrit data import owner/name:train --out mine.jsonl
    """
    from opengrit.data.importing import import_table, write_rows

    if out.suffix != ".jsonl":
        raise RecipeError(
            f"GRIT's rows are a .jsonl file, got --out {out}; write --out {out.with_suffix('.jsonl')}"
        )
    found = import_table(
        source,
        images=images,
        settings=settings_of(columns=columns, boxes=boxes, box_units=box_units, coco=coco),
        pictures=out.with_name(f"{out.stem}-pictures"),
        skip_bad_rows=skip_bad_rows,
    )
    write_rows(found.examples, out, images=found.images)
    print_import(found)
    typer.echo(f"written: {out} (use it with --images {found.images})")


def settings_of(*, columns: str | None, boxes: str | None, box_units: str | None, coco: str) -> TableSettings:
    """The settings of these options. Raises RecipeError or DataError for a value that is none."""
    from pydantic import ValidationError

    from opengrit.data.tables.settings import Columns, TableSettings, parse_columns

    named = Columns() if columns is None else parse_columns(columns)
    try:
        return TableSettings.model_validate(
            {"columns": named, "corners": boxes, "units": box_units, "coco": coco}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        option = {"corners": "--boxes", "units": "--box-units", "coco": "--coco"}[str(problem["loc"][0])]
        rule = problem["msg"][0].lower() + problem["msg"][1:]
        raise RecipeError(f"{option}: {rule}, got {problem['input']!r}; choose one of them") from error


def print_import(found: Imported) -> None:
    """What was found, what was done to it, and what is doubtful of it."""
    pictures = len({example.image for example in found.examples})
    typer.echo(f"rows: {len(found.examples)}, pictures: {pictures} (columns: {harmless(found.columns)})")
    for note in found.notes:
        typer.echo(f"note: {harmless(note)}")
    for doubt in found.doubts:
        typer.echo(f"warning: {harmless(str(doubt))}", err=True)
