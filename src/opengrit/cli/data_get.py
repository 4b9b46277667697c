"""`opengrit data get`: a data set's rows by name, and the pictures that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli.options import NoProgress


def get(
    name: Annotated[str, typer.Argument(help="Data set; `opengrit data list` names them.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; the files go into OUT/NAME.")] = Path("data"),
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Fetch the pictures that the rows name too, and no others.")
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Take the files from this folder, or, with --pictures, pictures from this folder, zip, tar or "
            "table of the hub's; no host is asked for what is in it.",
        ),
    ] = None,
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit of the hub's repository of the rows.")
    ] = "main",
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="Fetch single pictures of coco or visual-genome from here; may be repeated.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Single pictures fetched at once.")] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    quiet: NoProgress = False,
) -> None:
    """Fetch a data set's rows and pictures, and say before from where, how much and under which licence.

    Every picture is decoded and compared with the size that its rows say; where it came from and its SHA-256 are written
    to OUT/NAME/pictures.json. Nothing is overwritten. A broken-off call is made again: what is there is verified, the rest
    is fetched.

    Examples:

        opengrit data get grit20 --pictures

        opengrit data get vsr --pictures --from coco/train2017.zip

        opengrit data get pope --from POPE/

        opengrit eval --model MODEL --data data/vsr --out runs/vsr
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
