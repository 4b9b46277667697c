"""`opengrit eval`: a model answers every question of some data sets, and the answers are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from opengrit.cli import options
from opengrit.core.output import settle_output

_Data = Annotated[
    list[str],
    options.data(
        metavar="SOURCE",
        help="Packaged set (stickers/count), JSONL file, table, a folder or pattern of them, hub:owner/name:split, or a data set as a recipe writes it ('{file: a.csv, columns: {picture: photo}}'); may be repeated.",
    ),
]
_Images = Annotated[
    list[Path] | None,
    options.data(
        metavar="FOLDER", help="Image folder of the data files: once for all, or once for each in order."
    ),
]
_Samples = Annotated[int, options.generation(min=1, help="Answers to each question.")]
_BatchSize = Annotated[int, options.machine(min=1, help="Questions asked together.")]
_Limit = Annotated[int | None, options.data(min=1, help="Ask only the first N rows of each set.")]
_MinPixels = Annotated[
    int | None,
    options.model(metavar="PIXELS", min=1, help="Smallest picture the model sees, in pixels (Qwen)."),
]
_MaxTiles = Annotated[int | None, options.model(min=1, help="Most tiles a picture is cut into (InternVL).")]
_Judge = Annotated[
    str | None,
    options.judging(
        metavar="rule|FILE",
        help="What decides whether an answer is right: rule (default), a function of your own (judge.py:name), or a YAML file with a recipe's judge: section.",
    ),
]
_JudgeUrl = Annotated[
    str | None,
    options.judging(
        metavar="URL",
        help="Judge with a model behind this OpenAI-compatible endpoint; its key is in OPENAI_API_KEY.",
    ),
]
_JudgeModel = Annotated[
    str | None, options.judging(metavar="NAME", help="The judge model's name at --judge-url.")
]
_JudgeAgain = Annotated[
    bool,
    options.judging(
        "--judge-again",
        help="Judge the answers in OUT again, by the rows' current annotation. No question is asked again.",
    ),
]
_Rewards = Annotated[
    str,
    options.judging(
        metavar="SET|FILE",
        help="Rewards to measure: paper, released, answer_only, one of your own (rewards.py:name), or a YAML file with a recipe's rewards: section.",
    ),
]
_Processes = Annotated[
    int, options.machine(min=1, help="Copies of the model that answer at once, each in its own process.")
]
_Blind = Annotated[
    bool,
    options.data("--blind", help="Show a grey picture each time: what the model answers without looking."),
]


def evaluate(
    model: Annotated[str, options.model(help=f"{options.MODEL_HELP}.")],
    data: _Data,
    out: Annotated[
        Path, options.output(metavar="FOLDER", help="Run folder; an unfinished evaluation resumes.")
    ],
    endpoint: options.Endpoint = None,
    frame: options.Frame = None,
    max_pixels: options.MaxPixels = None,
    min_pixels: _MinPixels = None,
    max_tiles: _MaxTiles = None,
    images: _Images = None,
    limit: _Limit = None,
    blind: _Blind = False,
    quiet: options.NoProgress = False,
    strategy: options.Strategy = "grounded",
    system: options.System = None,
    samples: _Samples = 1,
    temperature: options.Temperature = 0.0,
    max_new_tokens: options.Length = 1000,
    seed: options.Seed = 0,
    judge: _Judge = None,
    judge_url: _JudgeUrl = None,
    judge_model: _JudgeModel = None,
    judge_again: _JudgeAgain = False,
    rewards: _Rewards = "paper",
    batch_size: _BatchSize = 32,
    num_processes: _Processes = 1,
) -> None:
    """Ask a model every question of some data sets and measure the answers.

    OUT gets records.jsonl: one line a question, with text, boxes, verdict and scores. The same command resumes an
    interrupted evaluation. It asks no answered question again; questions that failed (the endpoint was down, the picture
    could not be read) are asked again, and answers that the judge could not judge are judged again. If rows or pictures
    changed in the meantime, it refuses; if only the annotation was corrected, --judge-again judges the answers by the new
    one.

    Examples:

        opengrit eval --model mine/trained --data mine/test.jsonl \\
            --images photos/ --out mine/tested

        opengrit eval --model tiny-qwen2.5-vl \\
            --data stickers/count --data stickers/spatial --out runs/before

        opengrit eval --model mine/trained --data mine/test.jsonl \\
            --judge-url http://127.0.0.1:8000/v1 --judge-model big --out mine/judged

        opengrit eval --endpoint http://127.0.0.1:8000/v1 --model my-3b \\
            --frame qwen2_5_vl --data mine/test.jsonl --out mine/3b
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
