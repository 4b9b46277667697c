"""`train`, `evaluate` and `report` for scripts: they do what the commands do, and return a `Run`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from opengrit.core.output import quieten_libraries
from opengrit.recipes.evaluation_recipe import EvalRecipe, recipe_of_options
from opengrit.recipes.training_recipe import Recipe, load_recipe
from opengrit.scripting.run import Run

Name = str | os.PathLike[str]


def train(
    recipe: Recipe | Name,
    out: Name,
    *,
    resume: bool = False,
    resume_anyway: bool = False,
    resume_from: str | None = None,
    quiet: bool = False,
) -> Run:
    """Train by a recipe, given as an object, a file or a packaged name; return the finished run, with its `model`.

    Like `opengrit train`: `resume` resumes a run from its last checkpoint, `resume_from` from another one, and
    `resume_anyway` despite changes. `quiet` shows no live table. Raises RecipeError, DataError, ModelError or
    RunError if the training is not possible, before it loads a model or writes a file.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(os.fspath(recipe))
    from opengrit.training.run import train as train_run

    quieten_libraries()
    run = train_run(
        wanted,
        Path(out),
        resume=resume,
        resume_anyway=resume_anyway,
        resume_from=resume_from,
        quiet=quiet,
    )
    return Run(run.path)


def evaluate(
    model: Name | EvalRecipe,
    data: str | Sequence[str] = (),
    *,
    out: Name,
    strategy: str = "grounded",
    system: str | None = None,
    judge: str = "rule",
    rewards: str = "paper",
    images: Name | None = None,
    limit: int | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    frame: str | None = None,
    num_processes: int = 1,
    quiet: bool = False,
) -> Run:
    """Ask a model every question of some data sets; return the run, with a row of `metrics` for each set.

    `model` is a name, a run or a folder, and the other arguments are the options of `opengrit eval`; or it is an
    `EvalRecipe`, which has all of them. An unfinished evaluation in `out` resumes. Raises the same errors as `train`.
    """
    from opengrit.evaluation.run import run_evaluation

    if isinstance(model, EvalRecipe):
        recipe = model
    else:
        recipe = recipe_of_options(
            os.fspath(model),
            [data] if isinstance(data, str) else data,
            images=[] if images is None else [Path(images)],
            strategy=strategy,
            system=system,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            limit=limit,
            frame=frame,
            seed=seed,
            judge=judge,
            rewards=rewards,
        )
    quieten_libraries()
    run, _ = run_evaluation(recipe, Path(out), num_processes=num_processes, quiet=quiet)
    return Run(run.path)


def report(runs: Name | Sequence[Name], out: Name = "report.html", *, images: Name | None = None) -> Path:
    """Write one HTML page about runs, earliest first; return its path. Raises RunError if a folder has no run."""
    from opengrit.reports import load_runs, write_report

    folders = [Path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    write_report(load_runs(folders, images=None if images is None else Path(images)), Path(out))
    return Path(out)
