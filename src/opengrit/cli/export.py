"""`opengrit export`: a run's model as a folder that others load, and its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from opengrit.core.errors import RunError
from opengrit.core.output import settle_output


def export(
    run: Annotated[str, typer.Argument(help="Run folder of train or sft, or one of its checkpoints.")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Numbers the weights are stored in (default: as trained)."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge/--adapter", help="Merge an adapter into its base, or export it by itself."),
    ] = True,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of opengrit eval, of this model or its base, for the card; may be repeated."
        ),
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload to this new repository of the hub.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="The repository is for everybody to see (default: private).")
    ] = False,
) -> None:
    """Write a run's model to a folder that transformers and vLLM load without this package.

    OUT gets the weights (an adapter is merged into its base), the processor with its chat template, a generation config that
    ends an answer at </answer>, and a model card made from the run, with the figures of the evaluations that are named.
    Coordinates that a recipe overrides are in opengrit.json.

    Examples:

        opengrit export runs/demo --out exported/demo

        opengrit export runs/demo --dtype bfloat16 --out exported/demo-16 \\
            --evaluation runs/demo-count --evaluation runs/base-count

        opengrit export runs/demo --out exported/demo --push owner/demo
    """
    from opengrit.publishing.export import check_target
    from opengrit.publishing.export import export as export_model

    if public and push is None:
        raise RunError("--public is for an upload, none is asked for; add --push owner/name, or leave it out")
    settle_output()
    check_target(out)
    if push is not None:
        from huggingface_hub import HfApi

        from opengrit.publishing.hub import check_push

        check_push(push, hub=HfApi())
    made = export_model(run, out, dtype=dtype, adapter=not merge, called=push, evaluations=evaluation or [])
    typer.echo(f"exported model: {made}")
    if push is not None:
        from opengrit.publishing.hub import push as upload

        typer.echo(f"uploaded: {upload(made, push, public=public, hub=HfApi())}")
