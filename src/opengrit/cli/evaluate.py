"""`opengrit eval`: a model answers every question of some data sets, and the answers are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Option

from opengrit.cli import options
from opengrit.core.output import settle_output

_Data = Annotated[
    list[str],
    Option(
        help="Packaged set (stickers/count), JSONL file, table, folder or pattern of them, hub:owner/name:split, or a data set as a recipe has it ('{file: a.csv, columns: {picture: photo}}'); may be repeated."
    ),
]
_Images = Annotated[
    list[Path] | None,
    Option(help="Image folder of the data files: once for all, or once for each in order."),
]
_Samples = Annotated[int, Option(min=1, help="Answers to each question.")]
_BatchSize = Annotated[int, Option(min=1, help="Questions asked together.")]
_Limit = Annotated[int | None, Option(min=1, help="Ask only the first N rows of each set.")]
_MinPixels = Annotated[int | None, Option(min=1, help="Smallest picture the model sees, in pixels (Qwen).")]
_MaxTiles = Annotated[int | None, Option(min=1, help="Most tiles a picture is cut into (InternVL).")]
_Judge = Annotated[
    str | None,
    Option(
        metavar="rule|FILE.py:NAME|FILE.yaml",
        help="Who says whether an answer is right: rule (default), a function of your own, or a YAML file with a recipe's section judge:.",
    ),
]
_JudgeUrl = Annotated[
    str | None,
    Option(help="Judge by a model behind this OpenAI-compatible endpoint; its key is in OPENAI_API_KEY."),
]
_JudgeModel = Annotated[str | None, Option(help="The judge's name at --judge-url.")]
_JudgeAgain = Annotated[
    bool,
    Option(
        "--judge-again",
        help="Judge the answers in OUT once more, by the annotation of the rows as it is now; no question is asked twice.",
    ),
]
_Rewards = Annotated[
    str,
    Option(
        metavar="SET|FILE.py:NAME|FILE.yaml",
        help="Rewards that are measured: paper, released, answer_only, one of your own, or a YAML file with a recipe's section rewards:.",
    ),
]
_Processes = Annotated[int, Option(min=1, help="Models that answer at once, each in its own process.")]
_Blind = Annotated[bool, Option("--blind", help="Show every picture grey: what is known without looking.")]


def evaluate(
    model: Annotated[str, Option(help=f"{options.MODEL_HELP}.")],
    data: _Data,
    out: Annotated[Path, Option(help="Run folder; an unfinished evaluation resumes.")],
    images: _Images = None,
    endpoint: options.Endpoint = None,
    strategy: options.Strategy = "grounded",
    system: options.System = None,
    samples: _Samples = 1,
    temperature: options.Temperature = 0.0,
    max_new_tokens: options.Length = 1000,
    batch_size: _BatchSize = 32,
    limit: _Limit = None,
    frame: options.Frame = None,
    max_pixels: options.MaxPixels = None,
    min_pixels: _MinPixels = None,
    max_tiles: _MaxTiles = None,
    seed: options.Seed = 0,
    blind: _Blind = False,
    judge: _Judge = None,
    judge_url: _JudgeUrl = None,
    judge_model: _JudgeModel = None,
    judge_again: _JudgeAgain = False,
    rewards: _Rewards = "paper",
    num_processes: _Processes = 1,
    quiet: options.NoProgress = False,
) -> None:
    """Ask a model every question of some data sets and measure the answers.

    OUT gets records.jsonl, one line a question with text, boxes, verdict and scores. An interrupted evaluation resumes
    with the same command; no question that was answered is asked twice, and those that failed (an endpoint that was
    down, a picture that could not be read) are asked again. What a judge could not judge is judged again, and not
    asked again. Rows and pictures that are others than before are refused; where only their annotation was corrected,
    --judge-again judges the answers by the new one.

    Examples:

        opengrit eval --model tiny-qwen2.5-vl \\
            --data stickers/count --data stickers/spatial --out runs/before

        opengrit eval --model runs/demo --data mine.jsonl --images photos/ \\
            --out runs/mine

        opengrit eval --model runs/demo --data mine.jsonl \\
            --judge-url http://127.0.0.1:8000/v1 --judge-model big --out runs/judged

        opengrit eval --endpoint http://127.0.0.1:8000/v1 --model my-3b \\
            --frame qwen2_5_vl --data mine.jsonl --out runs/3b
    """
    from opengrit.evaluation.run import judging_lines, run_evaluation
    from opengrit.recipes.evaluation_recipe import recipe_of_options

    recipe = recipe_of_options(
        model,
        data,
        images=images or (),
        endpoint=endpoint,
        strategy=strategy,
        system=system,
        samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        limit=limit,
        frame=frame,
        max_pixels=max_pixels,
        min_pixels=min_pixels,
        max_tiles=max_tiles,
        seed=seed,
        blind=blind,
        judge=judge,
        judge_url=judge_url,
        judge_model=judge_model,
        rewards=rewards,
    )
    settle_output()
    run, records = run_evaluation(
        recipe, out, num_processes=num_processes, judge_again=judge_again, quiet=quiet
    )
    from opengrit.reports import print_summary

    print_summary({run.path.name: records}, Console())
    for line in judging_lines(recipe, records):
        typer.echo(line)
    typer.echo(f"records: {run.path / 'records.jsonl'}")
