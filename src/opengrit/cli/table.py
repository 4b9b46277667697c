"""`opengrit table`: the paper's table, data sets x ways x models x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options
from opengrit.core.output import settle_output


def table(
    recipe: options.RecipeName,
    out: Annotated[
        Path,
        options.output(metavar="FOLDER", help="Folder: new, or that of an unfinished table, which resumes."),
    ],
    overrides: options.Overrides = None,
    resume_anyway: Annotated[
        bool,
        options.resuming(
            "--resume-anyway",
            help="Resume trainings even if package versions differ from their checkpoints'. Prints what differs.",
        ),
    ] = False,
    judge_again: Annotated[
        bool,
        options.judging(
            "--judge-again",
            help="Judge the answers in OUT again, by the rows' current annotation. No question is asked again.",
        ),
    ] = False,
    so_far: Annotated[
        bool,
        options.output(
            "--so-far",
            help="Write the table of the finished runs and run nothing, also while another process makes it.",
        ),
    ] = False,
    quiet: Annotated[
        bool, options.output("--quiet", help="Print one line a run and one line a training step.")
    ] = False,
) -> None:
    """Compare ways of getting grounded answers: data sets x ways x models x seeds, in one table.

    The ways direct, grounded and grounded-icl ask the model as it is; sft, grpo-answer and grit train it first. OUT gets
    table.html, table.md, table.csv and table.tex, and runs/ with the trainings and evaluations that `opengrit train`,
    `sft` and `eval` would write. The same command resumes an interrupted table: it asks no question again, and trainings
    resume from their newest complete checkpoint. If rows, pictures or models changed in the meantime, it refuses. Ctrl-C
    and SIGTERM finish the current training step, write a checkpoint and stop (exit codes 130 and 143).

    Examples:

        opengrit table table-stickers --out runs/table

        opengrit table table-stickers \\
            --set "ways=[direct, grounded]" --set limit=20 --out runs/look

        opengrit table table-stickers --out runs/table --so-far

        opengrit recipe copy table-stickers --out mine-table.yaml

        opengrit table mine-table.yaml --out mine/table --set \\
            "train_data=[{file: mine/train.jsonl, images: photos}]" --set \\
            "data=[{file: mine/test.jsonl, images: photos}]"
    """
    from opengrit.experiments import load_table_recipe, run_table, table_so_far
    from opengrit.experiments.pages import NAMES
    from opengrit.experiments.sentences import findings

    wanted = load_table_recipe(recipe, overrides or [])
    settle_output()
    if so_far:
        result = table_so_far(wanted, out)
    else:
        result = run_table(wanted, out, resume_anyway=resume_anyway, judge_again=judge_again, quiet=quiet)
    for text in findings(result):
        typer.echo(text)
    failed = sum(way.num_failed for block in result.blocks for way in block.ways)
    if failed:
        typer.echo(f"{failed} rollouts failed and are left out; the same command asks them again", err=True)
    typer.echo(f"table: {', '.join(str(out / name) for name in NAMES)}")
