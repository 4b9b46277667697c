"""`opengrit sft`: supervised fine-tuning, what GRIT is compared with."""

from __future__ import annotations

import typer

from opengrit.cli import options
from opengrit.cli.launch import launch
from opengrit.core.output import settle_output


def sft(
    context: typer.Context,
    recipe: options.RecipeName,
    out: options.TrainingFolder,
    overrides: options.Overrides = None,
    resume: options.Resume = False,
    resume_anyway: options.ResumeAnyway = False,
    resume_from: options.ResumeFrom = None,
    num_processes: options.Processes = 1,
) -> None:
    """Fine-tune a model on targets made from rows with boxes (few-shot SFT, what GRIT is compared with).

    A row's target is a reply in the prompt's format with all its annotated boxes, in the coordinates the model writes.
    The loss covers the reply alone. OUT gets the resolved recipe, metrics.jsonl (one line a step), checkpoints/ and
    final/, the trained model. Nothing is ever overwritten.

    Examples:

        opengrit sft sft-demo --out runs/sft

        opengrit sft sft-demo --out mine/sft --set \\
            "data.train=[{file: mine/train.jsonl, images: photos}]"

        opengrit sft sft-demo --out runs/sft --resume
    """
    from opengrit.recipes.sft_recipe import load_sft_recipe
    from opengrit.training import fine_tune

    wanted = load_sft_recipe(recipe, overrides or [])
    if num_processes > 1:
        wanted.sft.passes_per_step(num_processes)
        raise typer.Exit(launch(context, count=num_processes))
    settle_output()
    from opengrit.training.training_loop import run_as_command

    run = run_as_command(
        lambda: fine_tune(wanted, out, resume=resume, resume_anyway=resume_anyway, resume_from=resume_from)
    )
    if run is not None:
        typer.echo(f"trained model: {run.path / 'final'}")
