"""The commands around the paper's table: sft, table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli.launch import launch
from opengrit.cli.models import (
    ProcessesOption,
    ResumeAnywayOption,
    ResumeFromOption,
    ResumeOption,
)
from opengrit.core.output import settle_output

OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
]


def sft(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file (see recipes/sft-demo.yaml).")],
    out: Annotated[Path, typer.Option(help="Run folder: new, or the one to go on with --resume.")],
    overrides: OverridesOption = None,
    resume: ResumeOption = False,
    resume_anyway: ResumeAnywayOption = False,
    resume_from: ResumeFromOption = None,
    num_processes: ProcessesOption = 1,
) -> None:
    """Fine-tune a model on targets made from rows with boxes (few-shot SFT, what GRIT is compared with).

    A row's target is a reply in the prompt's format with every annotated box in it, in the numbers the model writes;
    the loss is taken on the reply alone. OUT gets the resolved recipe, metrics.jsonl (a line a step), checkpoints/ and
    final/, the trained model. Nothing in it is ever overwritten.

    Examples:

        opengrit sft recipes/sft-demo.yaml --out runs/sft

        opengrit sft recipes/sft-demo.yaml --set sft.seed=2 \\
            --set model=tiny-internvl3 --out runs/sft-2

        opengrit sft recipes/sft-demo.yaml --out runs/sft --resume
    """
    from opengrit.recipes.sft_recipe import load_sft_recipe

    wanted = load_sft_recipe(recipe, overrides or [])
    if num_processes > 1:
        wanted.sft.passes_per_step(num_processes)
        raise typer.Exit(launch(context, count=num_processes))
    settle_output()
    from opengrit.training.sft import fine_tune
    from opengrit.training.training_loop import run_as_command

    run = run_as_command(
        lambda: fine_tune(wanted, out, resume=resume, resume_anyway=resume_anyway, resume_from=resume_from)
    )
    if run is not None:
        typer.echo(f"trained model: {run.path / 'final'}")


def table(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file (see recipes/table-stickers.yaml).")],
    out: Annotated[
        Path, typer.Option(help="Folder: new, or one that stands half done, which is gone on with.")
    ],
    overrides: OverridesOption = None,
    resume_anyway: Annotated[
        bool,
        typer.Option(
            "--resume-anyway",
            help="Let trainings go on though package versions are not those of their checkpoints; says which.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="A line a run, and one line a training step.")
    ] = False,
) -> None:
    """Compare ways of getting grounded answers: data sets x ways x models x seeds, in one table.

    The ways: direct, grounded and grounded-icl ask the model as it is; sft, grpo-answer and grit train it first. OUT gets
    table.html, table.md, table.csv and table.tex, and runs/ with a training and an evaluation for each, as `opengrit train`,
    `sft` and `eval` write them. The same command goes on after it was broken off: no question is asked twice, and
    trainings go on from their newest whole checkpoint. SIGTERM and Ctrl-C end a training after the step it is in, with a
    checkpoint (exit codes 143 and 130).

    Examples:

        opengrit table recipes/table-stickers.yaml --out runs/table

        opengrit table recipes/table-stickers.yaml \\
            --set "ways=[direct, grounded]" --set limit=20 --out runs/look
    """
    from opengrit.experiments import load_table_recipe, run_table
    from opengrit.experiments.pages import NAMES
    from opengrit.experiments.sentences import findings

    wanted = load_table_recipe(recipe, overrides or [])
    settle_output()
    result = run_table(wanted, out, resume_anyway=resume_anyway, quiet=quiet)
    for text in findings(result):
        typer.echo(text)
    failed = sum(way.num_failed for block in result.blocks for way in block.ways)
    if failed:
        typer.echo(f"{failed} rollouts failed and are left out; the same command asks them again", err=True)
    typer.echo(f"table: {', '.join(str(out / name) for name in NAMES)}")
