"""`opengrit data get`: a benchmark's annotation files."""

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
