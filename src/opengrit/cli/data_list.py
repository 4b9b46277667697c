"""`opengrit data list`: the benchmarks known by name."""

from __future__ import annotations

import typer


def list_benchmarks() -> None:
    """List the benchmarks that `opengrit data get` knows: rows, pictures, licences and kinds of answer.

    The packaged sticker sets come last; they need no download.

    Examples:

        opengrit data list
    """
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
