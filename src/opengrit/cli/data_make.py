"""`opengrit data make stickers`: the packaged world as files like your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def make_stickers(
    out: Annotated[Path, typer.Option(help="Folder to write to; nothing in it is overwritten.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="Set to write, may be repeated (default: all)."),
    ] = None,
) -> None:
    """Write sticker world as GRIT JSONL and PNG files: OUT/NAME.jsonl beside OUT/images.

    The same files come out on every machine. Every other command reads them as it reads your own data.

    Examples:

        opengrit data make stickers --out stickers/

        opengrit data make stickers --out stickers/ --set train20 --set count
    """
    from opengrit.data import stickers

    for name in sets or stickers.SET_NAMES:
        written = stickers.write(name, out)
        typer.echo(f"{written} (pictures in {out / 'images'})")
