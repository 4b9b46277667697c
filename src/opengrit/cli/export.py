"""`opengrit export`: a run's model as a folder that others load, and its upload."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from opengrit.cli import options
from opengrit.core.errors import RunError
from opengrit.core.output import settle_output

_upload = partial(typer.Option, rich_help_panel="Upload")


def export(
    run: Annotated[str, typer.Argument(help="Run folder of train or sft, or one of its checkpoints.")],
    out: Annotated[Path, options.output(metavar="FOLDER", help="New folder for the model.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        options.output(help="Data type of the stored weights (default: as trained)."),
    ] = None,
    merge: Annotated[
        bool,
        options.output("--merge/--adapter", help="Merge an adapter into its base, or export it by itself."),
    ] = True,
    evaluation: Annotated[
        list[Path] | None,
        options.output(
            metavar="RUN",
            help="Evaluation of this model or its base to cite on the model card; may be repeated.",
        ),
    ] = None,
    push: Annotated[
        str | None, _upload(metavar="OWNER/NAME", help="Upload to this new repository on the hub.")
    ] = None,
    public: Annotated[
        bool, _upload("--public", help="Make the repository public (default: private).")
    ] = False,
) -> None:
    """Write a run's model to a folder that transformers and vLLM load without this package.

    OUT gets the weights (an adapter is merged into its base), the processor with its chat template, a generation config that
    stops at </answer>, and a model card about the run with the figures of the named evaluations. If the recipe overrides
    the model's coordinates, opengrit.json says so.

    Examples:

        opengrit export mine/trained --out exported/mine

        opengrit export mine/trained --dtype bfloat16 --out exported/mine-16 \\
            --evaluation mine/tested --evaluation mine/base

        opengrit export mine/trained --out exported/mine --push owner/mine
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
