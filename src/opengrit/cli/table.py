"""`opengrit table`: the paper's table, data sets x ways x models x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options
from opengrit.core.output import settle_output


def table(
    recipe: options.RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder: new, or an unfinished table's, which resumes.")],
    overrides: options.Overrides = None,
    resume_anyway: Annotated[
        bool,
        typer.Option(
            "--resume-anyway",
            help="Resume trainings though package versions differ from their checkpoints'; says which.",
        ),
    ] = False,
    judge_again: Annotated[
        bool,
        typer.Option(
            "--judge-again",
            help="Judge the answers in OUT once more, by the annotation of the rows as it is now; no question is asked twice.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="A line a run, and one line a training step.")
    ] = False,
) -> None:
    """Compare ways of getting grounded answers: data sets x ways x models x seeds, in one table.

    The ways: direct, grounded and grounded-icl ask the model as it is; sft, grpo-answer and grit train it first. OUT gets
    table.html, table.md, table.csv and table.tex, and runs/ with a training and an evaluation for each, as `opengrit train`,
    `sft` and `eval` write them. An interrupted table resumes with the same command: no question is asked twice, and
    trainings resume from their newest whole checkpoint; rows, pictures and models that are others than before are refused.
    SIGTERM and Ctrl-C end a training after the step it is in, with a
    checkpoint (exit codes 143 and 130).

    Examples:

        opengrit table table-stickers --out runs/table

        opengrit table table-stickers \\
            --set "ways=[direct, grounded]" --set limit=20 --out runs/look
    """
    from opengrit.experiments import load_table_recipe, run_table
    from opengrit.experiments.pages import NAMES
    from opengrit.experiments.sentences import findings

    wanted = load_table_recipe(recipe, overrides or [])
    settle_output()
    result = run_table(wanted, out, resume_anyway=resume_anyway, judge_again=judge_again, quiet=quiet)
    for text in findings(result):
        typer.echo(text)
    failed = sum(way.num_failed for block in result.blocks for way in block.ways)
    if failed:
        typer.echo(f"{failed} rollouts failed and are left out; the same command asks them again", err=True)
    typer.echo(f"table: {', '.join(str(out / name) for name in NAMES)}")
