"""`opengrit report`: one HTML page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from opengrit.cli import options
from opengrit.core.errors import RunError
from opengrit.core.output import settle_log


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, earliest first.")],
    out: Annotated[Path, options.output(metavar="FILE", help="HTML file to write.")] = Path("report.html"),
    images: Annotated[
        Path | None,
        options.data(metavar="FOLDER", help="Picture folder, if it has moved since the runs."),
    ] = None,
    quiet: options.NoProgress = False,
) -> None:
    """Write one HTML page about runs: tables before and after, reward curves, examples that light up their boxes.

    Later evaluations are compared with the first, on the same questions. The page is one file, needs no network and can
    be sent to anybody. Writing it takes about twice the size of the runs' records.jsonl in memory, plus 150 MiB. Missing
    pictures and data that changed since the run are reported.

    Examples:

        opengrit report mine/trained mine/tested --out mine/report.html

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
