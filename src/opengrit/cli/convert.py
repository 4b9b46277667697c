"""`opengrit convert`: a model's folder in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def internvl(
    folder: Annotated[Path, typer.Argument(help="Folder of an InternVL in its makers' layout.")],
    out: Annotated[Path, typer.Option(help="New folder for the converted model.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with the tokenizer, where the model's own needs code of its makers'.",
        ),
    ] = None,
) -> None:
    """Write an InternVL (2, 2.5, 3 or 3.5) of its makers' layout in transformers' own, which needs no code of theirs.

    Weights are renamed, those that lie together are split; config, processor and tokenizer are written anew. Nothing in the
    folder is run, and one file of weights is in memory at a time.

    Examples:

        hf download yfan1997/GRIT-20-InternVL-2B --local-dir grit-internvl

        opengrit convert internvl grit-internvl --out grit-internvl-hf

        opengrit eval --model grit-internvl-hf --data data/vsr --max-tiles 2 --out runs/vsr
    """
    from opengrit.models.convert_internvl import convert

    typer.echo(f"converted: {convert(folder, out, tokenizer=tokenizer)}")
