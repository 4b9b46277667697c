"""`opengrit data get`: a data set's rows by name, and the pictures that they name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options

_download = partial(typer.Option, rich_help_panel="Download")


def get(
    name: Annotated[str, typer.Argument(help="Data set (opengrit data list names them).")],
    pictures: Annotated[
        bool, options.data("--pictures", help="Also fetch the pictures that the rows name, and only those.")
    ] = False,
    source: Annotated[
        Path | None,
        options.data(
            "--from",
            metavar="PATH",
            help="Take the files from this folder; with --pictures, the pictures from this folder, zip, tar or "
            "Parquet file. Nothing that is in it is downloaded.",
        ),
    ] = None,
    revision: Annotated[
        str, options.data(metavar="NAME", help="Branch, tag or commit of the rows' hub repository.")
    ] = "main",
    mirror: Annotated[
        list[str] | None,
        _download(
            metavar="NAME=URL",
            help="Fetch single pictures of coco or visual-genome from this address; may be repeated.",
        ),
    ] = None,
    workers: Annotated[int, _download(min=1, max=16, help="Single pictures to fetch at once.")] = 4,
    out: Annotated[
        Path, options.output(metavar="FOLDER", help="Folder to write to; the files go into OUT/NAME.")
    ] = Path("data"),
    dry_run: Annotated[bool, options.output("--dry-run", help="Print what would be done, and stop.")] = False,
    quiet: options.NoProgress = False,
) -> None:
    """Fetch a data set's rows and pictures; first print the source, the size and the licence.

    Every picture is decoded, and its size compared with its rows. OUT/NAME/pictures.json records the source and SHA-256 of
    each. Nothing is overwritten. The same command resumes an interrupted download: it verifies the files that exist and
    fetches the rest.

    Examples:

        opengrit data get grit20 --pictures

        opengrit data get vsr --pictures --from coco/train2017.zip

        opengrit data get pope --from POPE/

        opengrit eval --model mine/trained --data data/vsr --out mine/vsr
    """
    from opengrit.core.progress import progress_bar
    from opengrit.data import get as getting
    from opengrit.data.pictures.addresses import with_mirrors
    from opengrit.data.pictures.fetch import get_pictures, plan_pictures

    hosts, hub = with_mirrors(mirror or []), getting.HuggingFaceHub()
    # A folder or archive of pictures need not have the rows; what is asked for without pictures must.
    rows_from = source if not pictures or getting.has_rows(name, source) else None
    if dry_run:
        typer.echo(str(getting.plan(name, out, mirror=rows_from, hub=hub, revision=revision)))
        if pictures:
            typer.echo(str(plan_pictures(name, out, source=source, hosts=hosts)))
        return
    paths = getting.get(
        name,
        out,
        mirror=rows_from,
        hub=hub,
        revision=revision,
        announce=lambda plan: typer.echo(str(plan)),
        keep_downloads=pictures,
    )
    for path in paths:
        typer.echo(f"verified: {path}")
    if not pictures:
        return
    with progress_bar(quiet) as progress:
        task = progress.add_task("pictures", total=None)
        folder = get_pictures(
            name,
            out,
            source=source,
            hub=hub,
            revision=revision,
            hosts=hosts,
            workers=workers,
            announce=lambda plan: typer.echo(str(plan)),
            on_progress=lambda here, of: progress.update(task, completed=here, total=of),
        )
    typer.echo(f"verified: every picture of {name}, in {folder}")
