"""`opengrit new`: a table and a folder of pictures become a folder that trains."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import data_import, options
from opengrit.cli.data_import import print_import, settings_of
from opengrit.core.escaping import harmless


def new(
    source: data_import.SourceName,
    out: Annotated[Path, options.output(metavar="FOLDER", help="New folder.")],
    images: data_import.Images = None,
    model: Annotated[
        str | None,
        options.model(
            help="Packaged model, folder or hub id to train (default: the largest that fits this machine's GPU)."
        ),
    ] = None,
    test_share: Annotated[
        float,
        options.data(
            metavar="SHARE", help="Share of the rows kept for testing; a picture's rows stay together."
        ),
    ] = 0.2,
    seed: Annotated[int, options.data(min=0, help="Seed of the split.")] = 0,
    steps: Annotated[
        int | None, options.model(min=1, help="Training steps (default: those of the packaged recipe).")
    ] = None,
    columns: data_import.ColumnNames = None,
    boxes: data_import.Boxes = None,
    box_units: data_import.BoxUnits = None,
    coco: data_import.Coco = "counting",
    skip_bad_rows: data_import.SkipBadRows = False,
) -> None:
    """Prepare training on your own pictures and questions, and print the next commands.

    SOURCE is read as by `opengrit data import`. OUT gets train.jsonl and test.jsonl, which share no picture, and
    recipe.yaml: a packaged recipe that fits this machine's GPU, with your rows. Edit what you like; nothing needs editing.

    Examples:

        opengrit new sheet.csv --images photos/ --out mine/

        opengrit new sheet.xlsx --images photos/ --out mine/ \\
            --model Qwen/Qwen2.5-VL-3B-Instruct --steps 50
    """
    from opengrit.models.resolve import resolve
    from opengrit.recipes.choosing import choose
    from opengrit.recipes.project import make_project

    if model is not None:
        resolve(model)  # to refuse what stands for no model
    made = make_project(
        source,
        out,
        choice=choose(device_gb=None if _is_packaged(model) else _device_gb(), model=model),
        images=images,
        settings=settings_of(columns=columns, boxes=boxes, box_units=box_units, coco=coco),
        test_share=test_share,
        seed=seed,
        max_steps=steps,
        skip_bad_rows=skip_bad_rows,
    )
    print_import(made.imported)
    typer.echo(f"training rows: {len(made.split.train)}, test rows: {len(made.split.test)} (in {out})")
    for note in made.notes:
        typer.echo(f"note: {harmless(note)}")
    typer.echo(
        f"\nNext, in this folder (first, opengrit doctor {shlex.quote(str(made.recipe))} finds what would waste a run):\n"
    )
    for command in made.commands:
        typer.echo(f"    {command}")


def _is_packaged(model: str | None) -> bool:
    from opengrit.recipes.choosing import PACKAGED_MODEL

    return model is not None and model.startswith(PACKAGED_MODEL)


def _device_gb() -> float | None:
    """The memory of the first GPU in GB of 10^9 bytes; None where there is none."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None
