"""`opengrit train`: a model learns to show its evidence."""

from __future__ import annotations

from typing import Annotated

import typer

from opengrit.cli import options
from opengrit.cli.launch import launch
from opengrit.core.output import settle_output


def train(
    context: typer.Context,
    recipe: options.RecipeName,
    out: options.TrainingFolder,
    overrides: options.Overrides = None,
    resume: options.Resume = False,
    resume_anyway: options.ResumeAnyway = False,
    resume_from: options.ResumeFrom = None,
    quiet: Annotated[
        bool, options.output("--quiet", help="Print one line a step instead of a live table.")
    ] = False,
    num_processes: options.Processes = 1,
) -> None:
    """Train a model to show its evidence, as a recipe says (GRPO-GR).

    OUT gets the resolved recipe, records.jsonl (every rollout with its reward parts), metrics.jsonl (one line a step),
    checkpoints/ and final/, the trained model. Nothing is ever overwritten, and nothing is deleted unless the recipe
    asks for it (train.keep_checkpoints). Ctrl-C and SIGTERM finish the current step, write a checkpoint and stop (exit codes
    130 and 143); a second one stops at once.

    Examples:

        opengrit train demo --out runs/demo

        opengrit train mine/recipe.yaml --out mine/trained

        opengrit train mine/recipe.yaml --out mine/trained --resume

        opengrit train demo --set train.seed=2 \\
            --set model=tiny-internvl3 --out runs/demo-2

        opengrit train demo --out runs/two --num-processes 2 \\
            --set train.per_device_train_batch_size=80
    """
    from opengrit.recipes.training_recipe import load_recipe

    wanted = load_recipe(recipe, overrides or [])
    if num_processes > 1:
        wanted.train.passes_per_step(num_processes)
        raise typer.Exit(launch(context, count=num_processes))
    settle_output()
    # These import torch; the recipe is known to be good by now.
    from opengrit.training import train as train_model
    from opengrit.training.training_loop import run_as_command

    run = run_as_command(
        lambda: train_model(
            wanted, out, resume=resume, resume_anyway=resume_anyway, resume_from=resume_from, quiet=quiet
        )
    )
    if run is not None:
        typer.echo(f"trained model: {run.path / 'final'}")
