"""`opengrit convert`: a model's folder in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options


def internvl(
    folder: Annotated[Path, typer.Argument(help="Folder of an InternVL in its makers' layout.")],
    out: Annotated[Path, options.output(metavar="FOLDER", help="New folder for the converted model.")],
    tokenizer: Annotated[
        Path | None,
        options.model(
            metavar="FOLDER",
            help="Folder of another tokenizer, if the model's own needs its makers' code.",
        ),
    ] = None,
) -> None:
    """Convert an InternVL (2, 2.5, 3 or 3.5) from its makers' layout to transformers' own, which needs no remote code.

    Renames weights and splits fused ones; writes config, processor and tokenizer anew. No code in the folder runs, and one
    weight file is in memory at a time.

    Examples:

        hf download yfan1997/GRIT-20-InternVL-2B --local-dir grit-internvl

        opengrit convert internvl grit-internvl --out grit-internvl-hf

        opengrit eval --model grit-internvl-hf --data mine/test.jsonl \\
            --images photos/ --max-tiles 2 --out mine/grit
    """
    from opengrit.models.convert_internvl import convert

    typer.echo(f"converted: {convert(folder, out, tokenizer=tokenizer)}")
