"""The commands that fetch benchmarks: `opengrit data get` and `opengrit data list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def get(
    name: Annotated[str, typer.Argument(help="Benchmark; `opengrit data list` names them.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; the files go into OUT/NAME.")],
    mirror: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Take the files from this folder; no network is used."),
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the hub's repository.")] = "main",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Fetch a benchmark's annotation files, and say before from where, how large and under which licence.

    A broken-off call is made again: what is there is verified (rows, SHA-256), the rest is fetched. Nothing is
    overwritten. Pictures are not fetched: put them into OUT/NAME/images, or name their folder with eval's option --images.

    Examples:

        opengrit data get vsr --out benchmarks/

        opengrit data get pope --out benchmarks/ --from POPE/

        opengrit eval --model MODEL --data benchmarks/vsr/vsr_val.jsonl \\
            --images coco/val2017 --out runs/vsr
    """
    from opengrit.data import get as getting

    hub = getting.HuggingFaceHub()
    if dry_run:
        typer.echo(str(getting.plan(name, out, mirror=mirror, hub=hub, revision=revision)))
        return
    paths = getting.get(
        name, out, mirror=mirror, hub=hub, revision=revision, announce=lambda plan: typer.echo(str(plan))
    )
    for path in paths:
        typer.echo(f"verified: {path}")


def list_benchmarks() -> None:
    """List the benchmarks known by name: rows, pictures, licences, and what an answer is."""
    from opengrit.data.benchmarks import BENCHMARKS, UNKNOWN
    from opengrit.data.stickers import SET_NAMES

    for known in BENCHMARKS:
        rows = UNKNOWN if known.rows is None else known.rows
        pictures = known.pictures
        lines = {
            "questions": f"rows: {rows}; licence: {known.licence}; {known.page}",
            "pictures": f"{pictures.source}; size {pictures.size}; licence: {pictures.licence}",
            "answers": known.answers,
            "note": known.note,
        }
        typer.echo(f"{known.name}: {known.title}")
        for label, text in lines.items():
            if text:
                typer.echo(f"  {label}: {text}")
    packaged = ", ".join(f"stickers/{name}" for name in SET_NAMES)
    typer.echo(f"{packaged}: packaged, nothing to fetch")
