"""`opengrit report`: one HTML page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from opengrit.cli.options import NoProgress
from opengrit.core.errors import RunError
from opengrit.core.output import settle_log


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, the earliest first.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds the pictures now, if they have moved (default: where they were)."
        ),
    ] = None,
    quiet: NoProgress = False,
) -> None:
    """Write one HTML page about runs: tables before and after, reward curves, examples that light up their boxes.

    The first evaluation run is what the later ones are compared with, on the same questions. The page needs no
    network and can be sent to anybody as a file. It takes memory of about twice the size of the runs' records.jsonl,
    and 150 MiB. Pictures that cannot be found and data that changed since are told.

    Example:

        opengrit report runs/before runs/demo runs/after --out report.html
    """
    from opengrit.reports import load_runs, print_tables, write_report

    settle_log()
    if images is not None and not images.is_dir():
        raise RunError(
            f"--images is a folder that exists, {images} is none; name the one that holds the pictures"
        )
    views = load_runs(runs, images=images, quiet=quiet)
    made = write_report(views, out)
    print_tables(made.tables, made.runs, Console())
    typer.echo(f"report: {out.resolve()}")
