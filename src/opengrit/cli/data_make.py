"""`opengrit data make stickers`: the packaged world as files like your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options


def make_stickers(
    out: Annotated[
        Path, options.output(metavar="FOLDER", help="Folder to write to; nothing in it is overwritten.")
    ],
    sets: Annotated[
        list[str] | None,
        options.data("--set", metavar="NAME", help="Set to write; may be repeated (default: all)."),
    ] = None,
) -> None:
    """Write sticker world as JSONL and PNG files: OUT/NAME.jsonl and OUT/images.

    Every machine writes the same files. All other commands read them as they read your own data.

    Examples:

        opengrit data make stickers --out stickers/

        opengrit data make stickers --out stickers/ --set train20 --set count

        opengrit data check stickers/count.jsonl --images stickers/images
    """
    from opengrit.data import stickers

    for name in sets or stickers.SET_NAMES:
        written = stickers.write(name, out)
        typer.echo(f"{written} (pictures in {out / 'images'})")
