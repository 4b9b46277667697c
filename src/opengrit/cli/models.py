"""The commands that need a model or its runs: train, eval, report, ask."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from opengrit.cli.launch import launch
from opengrit.core.errors import RecipeError, RunError
from opengrit.core.output import settle_output

if TYPE_CHECKING:
    from pydantic import ValidationError

    from opengrit.inference.batch import Asking, BadRow, Row
    from opengrit.inference.grounder import Grounder

_T = TypeVar("_T")
_DRAWN = (".png", ".jpg", ".jpeg")
_EXIT_FAILED = 1

# What eval and ask share.
ModelOption = Annotated[
    str, typer.Option(help="Packaged model, run folder, model folder, adapter or hub id.")
]
StrategyOption = Annotated[str, typer.Option(help="How to ask: grounded, direct, grounded-icl or sft.")]
FrameOption = Annotated[
    str | None,
    typer.Option(
        help="Coordinates the model writes: pixels, thousand or unit (default: by model type); behind an endpoint a model type (qwen2_5_vl) will do."
    ),
]
MaxPixelsOption = Annotated[
    int | None, typer.Option(min=1, help="Largest picture the model sees, in pixels (Qwen families).")
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        help="Ask a server instead: the address of an OpenAI-compatible endpoint (http://host:8000/v1)."
    ),
]
LengthOption = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="0 takes the most likely token.")]
ProcessesOption = Annotated[
    int,
    typer.Option(
        min=1, help="Processes on this machine that train together: a GPU each, or a share of the cores."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]

# What train and sft share.
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")]
ResumeAnywayOption = Annotated[
    bool,
    typer.Option(
        "--resume-anyway",
        help="Go on (--resume is not needed) though recipe, package versions or number of processes are not those of the checkpoint; says which.",
    ),
]
ResumeFromOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Go on from this checkpoint (step-000010), not the last; later ones are set aside. --resume is not needed.",
    ),
]


def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file (see recipes/).")],
    out: Annotated[Path, typer.Option(help="Run folder: new, or the one to go on with --resume.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None,
    resume: ResumeOption = False,
    resume_anyway: ResumeAnywayOption = False,
    resume_from: ResumeFromOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a step instead of a live table.")] = False,
    num_processes: ProcessesOption = 1,
) -> None:
    """Train a model to show its evidence, as a recipe says (GRPO-GR).

    OUT gets the resolved recipe, records.jsonl (every rollout with its reward parts), metrics.jsonl (a line a step),
    checkpoints/ and final/, the trained model. Nothing in it is ever overwritten, and nothing is deleted unless the recipe
    says so (train.keep_checkpoints). SIGTERM and Ctrl-C end the run after the step it is in, with a checkpoint (exit codes
    143 and 130); a second one ends it at once.

    Examples:

        opengrit train recipes/demo.yaml --out runs/demo

        opengrit train recipes/demo.yaml --set train.seed=2 \\
            --set model=tiny-internvl3 --out runs/demo-2

        opengrit train recipes/demo.yaml --out runs/demo --resume

        opengrit train recipes/demo.yaml --out runs/demo --num-processes 2 \\
            --set train.per_device_train_batch_size=80
    """
    from opengrit.recipes.training_recipe import load_recipe

    wanted = load_recipe(recipe, overrides or [])
    if num_processes > 1:
        wanted.train.passes_per_step(num_processes)
        raise typer.Exit(launch(context, count=num_processes))
    settle_output()
    from opengrit.training.run import (
        train as train_model,  # imports torch; the recipe is known to be good by now
    )
    from opengrit.training.training_loop import run_as_command

    run = run_as_command(
        lambda: train_model(
            wanted, out, resume=resume, resume_anyway=resume_anyway, resume_from=resume_from, quiet=quiet
        )
    )
    if run is not None:
        typer.echo(f"trained model: {run.path / 'final'}")


def evaluate(
    model: ModelOption,
    data: Annotated[
        list[str], typer.Option(help="Packaged set (stickers/count) or GRIT JSONL file; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder; one that stands half done is gone on with.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Image folder of the JSONL files: once for all, or once for each in order."),
    ] = None,
    endpoint: EndpointOption = None,
    strategy: StrategyOption = "grounded",
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1,
    temperature: TemperatureOption = 0.0,
    max_new_tokens: LengthOption = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions asked together.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only the first N rows of each set.")] = None,
    frame: FrameOption = None,
    max_pixels: MaxPixelsOption = None,
    min_pixels: Annotated[
        int | None, typer.Option(min=1, help="Smallest picture the model sees, in pixels (Qwen families).")
    ] = None,
    max_tiles: Annotated[
        int | None, typer.Option(min=1, help="Most tiles a picture is cut into (InternVL).")
    ] = None,
    seed: SeedOption = 0,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="rule|FILE.yaml",
            help="Who says whether an answer is right: rule (default), or a YAML file with a recipe's section judge:.",
        ),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(
            help="Judge by a model behind this OpenAI-compatible endpoint; its key is in OPENAI_API_KEY."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name at --judge-url.")] = None,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Models that answer at once, each in its own process (on its own GPU).")
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Ask a model every question of some data sets and measure the answers.

    OUT gets records.jsonl, one line a question with text, boxes, verdict and scores. A broken-off evaluation is
    continued by the same command; no question that was answered is asked twice, and those that failed (an endpoint
    that was down, a picture that could not be read) are asked again. What a judge could not judge is judged again,
    and not asked again.

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
    from pydantic import ValidationError

    from opengrit.evaluation.run import EvalRecipe, judge_of, judging_lines, run_evaluation, sources_of

    try:
        recipe = EvalRecipe.model_validate(
            {
                "model": {
                    "name": model,
                    "frame": frame if endpoint is None else None,
                    "min_pixels": min_pixels,
                    "max_pixels": max_pixels,
                    "max_tiles": max_tiles,
                },
                "data": sources_of(data, images or []),
                "endpoint": None if endpoint is None else {"url": endpoint, "frame": frame},
                "strategy": strategy,
                "eval": {
                    "max_completion_length": max_new_tokens,
                    "batch_size": batch_size,
                    "samples": samples,
                    "temperature": temperature,
                },
                "limit": limit,
                "seed": seed,
                "judge": judge_of(judge, url=judge_url, model=judge_model),
            }
        )
    except ValidationError as error:
        raise RecipeError(_wrong_option(error)) from error
    settle_output()
    run, records = run_evaluation(recipe, out, num_processes=num_processes, quiet=quiet)
    from opengrit.reports import print_summary

    print_summary({run.path.name: records}, Console())
    for line in judging_lines(recipe, records):
        typer.echo(line)
    typer.echo(f"records: {run.path / 'records.jsonl'}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, the earliest first.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page about runs: tables before and after, reward curves, examples that light up their boxes.

    The first evaluation run is what the later ones are compared with, on the same questions. The page needs no
    network and can be sent to anybody as a file.

    Example:

        opengrit report runs/before runs/demo runs/after --out report.html
    """
    from opengrit.reports import load_runs, print_summary, write_report

    views = load_runs(runs)
    write_report(views, out)
    evaluated = {view.name: view.records for view in views if view.is_evaluation}
    if evaluated:
        print_summary(evaluated, Console())
    typer.echo(f"report: {out.resolve()}")


def ask(
    image: Annotated[
        Path | None,
        typer.Argument(help="Picture file, or a folder: the question is put to each picture in it."),
    ] = None,
    question: Annotated[str | None, typer.Argument(help="What you want to know about it.")] = None,
    image_option: Annotated[Path | None, typer.Option("--image", help="The same as IMAGE.")] = None,
    question_option: Annotated[str | None, typer.Option("--question", help="The same as QUESTION.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(help='JSONL file of questions, {"image": ..., "question": ..., "id": ...} a line.'),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Picture folder of --batch (default: the folder the file is in).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the answers of --batch or a folder, a line of JSON each; what it holds is not asked again."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Packaged model, run folder, model folder, adapter or hub id (default: tiny-qwen2.5-vl); with --endpoint, its name there."
        ),
    ] = None,
    endpoint: EndpointOption = None,
    strategy: StrategyOption = "grounded",
    frame: FrameOption = None,
    max_pixels: MaxPixelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(
            help="Write the picture with the boxes to this PNG or JPEG file; many go to this folder."
        ),
    ] = None,
    max_new_tokens: LengthOption = 1000,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Ask pictures questions; the answers point.

    One picture: prints what the model writes (as it is written, on a terminal), the boxes in the picture's pixels and
    the answer. Many, with --batch or a folder: a line of JSON each, to standard output or --out, where the same
    command goes on after it was broken off; a row that cannot be asked is a line with an error, and the exit code
    is 1 then. The packaged models know emoji stickers only (opengrit data make stickers writes some).

    Examples:

        opengrit ask stickers/images/count-00003.png "How many flowers are there?" \\
            --draw out.png

        opengrit ask --batch questions.jsonl --out answers.jsonl --draw drawn/

        opengrit ask photos/ "How many people are there?" \\
            --endpoint http://127.0.0.1:8000/v1 --frame qwen2_5_vl
    """
    from opengrit.inference import batch as asking

    image, question = _one_of(image, image_option, "IMAGE"), _one_of(question, question_option, "QUESTION")
    source = _source(model, endpoint)
    settings = asking.Asking(
        max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, draw=draw, quiet=quiet
    )
    chosen = _Chosen(source, model if endpoint else None, strategy, frame, max_pixels)
    if batch is None and image is not None and question is not None and not os.path.isdir(image):
        if out is not None or images is not None:
            raise RecipeError("--out and --images belong to many questions, this is one; leave them out")
        _ask_one(chosen, image, question, settings, as_json=as_json)
        return
    if as_json:
        raise RecipeError(
            "--json prints the answer to one question, many are JSON lines already; leave it out"
        )
    if draw is not None and draw.suffix.lower() in _DRAWN:
        raise RecipeError(f"--draw names a folder where many questions are asked, got {draw}; name a folder")
    _ask_many(chosen, _rows(batch, images, image, question), settings, out)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The model to ask, and how."""

    source: str
    served: str | None
    strategy: str
    frame: str | None
    max_pixels: int | None

    def load(self) -> Grounder:
        from opengrit.inference.grounder import Grounder

        return Grounder.load(
            self.source,
            model=self.served,
            strategy=self.strategy,
            frame=self.frame,
            max_pixels=self.max_pixels,
        )


def _one_of(argument: _T | None, option: _T | None, name: str) -> _T | None:
    if argument is not None and option is not None:
        raise RecipeError(
            f"{name} is given once, got {argument} and --{name.lower()} {option}; leave one of them out"
        )
    return option if argument is None else argument


def _source(model: str | None, endpoint: str | None) -> str:
    """What `Grounder.load` is given first: the endpoint, or the model in memory."""
    if endpoint is None:
        return model or "tiny-qwen2.5-vl"
    if not endpoint.startswith(("http://", "https://")):
        raise RecipeError(
            f"--endpoint is an http or https address, got {endpoint!r}; write http://127.0.0.1:8000/v1"
        )
    return endpoint


def _rows(
    batch: Path | None, images: Path | None, image: Path | None, question: str | None
) -> list[Row | BadRow]:
    from opengrit.inference.batch import read_rows, rows_of_folder
    from opengrit.inference.grounder import check_question

    if batch is not None:
        if image is not None or question is not None:
            raise RecipeError(
                f"--batch holds pictures and questions, got {image or question} beside it; leave that out"
            )
        return read_rows(batch, images=images)
    if image is None or question is None:
        raise RecipeError(
            "ask takes a picture and a question, or --batch FILE, got neither pair; see opengrit ask --help"
        )
    if images is not None:
        raise RecipeError(f"--images is the picture folder of --batch, got {images} without it; leave it out")
    check_question(question)
    return rows_of_folder(image, question)


def _ask_one(chosen: _Chosen, image: Path, question: str, settings: Asking, *, as_json: bool) -> None:
    if settings.draw is not None:
        _check_drawing(settings.draw)
    from opengrit.core.images import open_picture
    from opengrit.grounding.prompts import strategy_named
    from opengrit.inference.grounder import check_question

    check_question(question)
    strategy_named(chosen.strategy)
    picture = open_picture(image)  # a picture that cannot be read is known before the model loads
    settle_output()
    grounder = chosen.load()
    console = Console(soft_wrap=True)
    how = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }
    if as_json:
        answer = grounder.ask(picture, question, **how)  # type: ignore[arg-type]
        typer.echo(json.dumps(answer.as_json()))  # ASCII: what a model wrote steers no terminal
    else:
        from opengrit.inference.terminal import print_boxes_and_answer, stream_text

        answer = stream_text(console, grounder, picture, grounder.stream(picture, question, **how))  # type: ignore[arg-type]
        print_boxes_and_answer(console, answer)
    if settings.draw is not None:
        grounder.draw(answer, picture).save(settings.draw)
        typer.echo(f"drawn: {settings.draw}", err=as_json)


def _ask_many(chosen: _Chosen, rows: list[Row | BadRow], settings: Asking, out: Path | None) -> None:
    from opengrit.grounding.prompts import strategy_named
    from opengrit.inference import batch as asking

    strategy_named(chosen.strategy)
    results = asking.Printed() if out is None else asking.JsonLines(out, rows)
    if out is None and sys.stdout.isatty():  # the answers scroll by; a bar would run through them
        settings = replace(settings, quiet=True)
    try:
        asking.check_drawings(settings.draw, [row for row in rows if row.id not in results.answered])
        if all(row.id in results.answered for row in rows):
            tally = asking.Tally(asked=0, failed=0, skipped=len(rows))
        else:
            settle_output()
            tally = asking.ask_rows(chosen.load(), rows, results, asking=settings)
    finally:
        results.close()
    before = f", {tally.skipped} were answered before" if tally.skipped else ""
    typer.echo(f"asked: {tally.asked} ({tally.failed} failed){before}", err=True)
    if tally.failed:
        raise typer.Exit(_EXIT_FAILED)


def _wrong_option(error: ValidationError) -> str:
    problem = error.errors()[0]
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}; see opengrit eval --help"
    place = ".".join(str(part) for part in problem["loc"])
    rule = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place}: {rule}, got {problem['input']!r}; see opengrit eval --help"


def _check_drawing(path: Path) -> None:
    if path.suffix.lower() not in _DRAWN:
        raise RecipeError(f"--draw writes PNG or JPEG, got {path}; end its name in .png or .jpg")
    if os.path.lexists(path):
        raise RunError(f"nothing is overwritten, {path} exists; choose another name for --draw")
    if not os.path.isdir(path.parent):
        raise RunError(f"--draw writes into a folder that exists, {path.parent} is none; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RunError(
            f"--draw writes into a folder that can be written, {path.parent} cannot; choose another"
        )
