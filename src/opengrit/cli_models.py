"""The commands that need a model or its runs: train, eval, report, ask."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from opengrit.errors import RecipeError, RunError

if TYPE_CHECKING:
    from pydantic import ValidationError

_LIBRARIES = r"(transformers|trl|peft|accelerate|datasets|huggingface_hub|torch)\."

# What eval and ask share.
ModelOption = Annotated[
    str, typer.Option(help="Packaged model, run folder, model folder, adapter or hub id.")
]
StrategyOption = Annotated[str, typer.Option(help="How to ask: grounded, direct, grounded-icl or sft.")]
FrameOption = Annotated[
    str | None,
    typer.Option(help="Coordinates the model writes: pixels, thousand or unit (default: by model type)."),
]
MaxPixelsOption = Annotated[
    int | None, typer.Option(min=1, help="Largest picture the model sees, in pixels (Qwen families).")
]
LengthOption = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="0 takes the most likely token.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file (see recipes/).")],
    out: Annotated[Path, typer.Option(help="Run folder: new, or the one to go on with --resume.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a step instead of a live table.")] = False,
) -> None:
    """Train a model to show its evidence, as a recipe says (GRPO-GR).

    OUT gets the resolved recipe, records.jsonl (every rollout with its reward parts), metrics.jsonl (a line a step),
    checkpoints/ and final/, the trained model. Nothing in it is ever overwritten.

    Examples:

        opengrit train recipes/demo.yaml --out runs/demo

        opengrit train recipes/demo.yaml --set train.seed=2 --set model=tiny-internvl3 --out runs/demo-2

        opengrit train recipes/demo.yaml --out runs/demo --resume
    """
    from opengrit.config import load_recipe

    wanted = load_recipe(recipe, overrides or [])
    _settle_output()
    from opengrit import training  # imports torch; the recipe is known to be good by now

    run = training.train(wanted, out, resume=resume, quiet=quiet)
    if training.leave_processes():
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
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Ask a model every question of some data sets and measure the answers.

    OUT gets records.jsonl, one line a question with text, boxes, verdict and scores. A broken-off evaluation is
    continued by the same command; no question is asked twice.

    Examples:

        opengrit eval --model tiny-qwen2.5-vl --data stickers/count --data stickers/spatial --out runs/before

        opengrit eval --model runs/demo --data mine.jsonl --images photos/ --out runs/mine
    """
    from pydantic import ValidationError

    from opengrit.evaluation import EvalRecipe, run_evaluation, sources_of

    try:
        recipe = EvalRecipe.model_validate(
            {
                "model": {
                    "name": model,
                    "frame": frame,
                    "min_pixels": min_pixels,
                    "max_pixels": max_pixels,
                    "max_tiles": max_tiles,
                },
                "data": sources_of(data, images or []),
                "strategy": strategy,
                "eval": {
                    "max_completion_length": max_new_tokens,
                    "batch_size": batch_size,
                    "samples": samples,
                    "temperature": temperature,
                },
                "limit": limit,
                "seed": seed,
            }
        )
    except ValidationError as error:
        raise RecipeError(_wrong_option(error)) from error
    _settle_output()
    run, records = run_evaluation(recipe, out, quiet=quiet)
    from opengrit.report import print_summary

    print_summary({run.path.name: records}, Console())
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
    from opengrit.report import load_runs, print_summary, write_report

    views = load_runs(runs)
    write_report(views, out)
    evaluated = {view.name: view.records for view in views if view.is_evaluation}
    if evaluated:
        print_summary(evaluated, Console())
    typer.echo(f"report: {out.resolve()}")


def ask(
    image: Annotated[Path, typer.Argument(help="Picture file.")],
    question: Annotated[str, typer.Argument(help="What you want to know about it.")],
    model: ModelOption = "tiny-qwen2.5-vl",
    strategy: StrategyOption = "grounded",
    frame: FrameOption = None,
    max_pixels: MaxPixelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Write the picture with the boxes to this PNG or JPEG file.")
    ] = None,
    max_new_tokens: LengthOption = 1000,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
) -> None:
    """Ask one picture one question; the answer points.

    Prints what the model wrote, the boxes in the picture's pixels and the answer. The packaged models know emoji
    stickers only (opengrit data make stickers writes some).

    Example:

        opengrit ask stickers/images/count-00003.png "How many flowers are there?" --draw out.png
    """
    if draw is not None:
        _check_drawing(draw)
    from opengrit.ground import Grounder, check_question, draw_boxes
    from opengrit.images import open_picture
    from opengrit.prompts import strategy_named

    check_question(question)
    strategy_named(strategy)
    picture = open_picture(image)  # a picture that cannot be read is known before the model loads
    _settle_output()
    answer = Grounder.load(model, strategy=strategy, frame=frame, max_pixels=max_pixels).ask(
        image, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    if as_json:
        typer.echo(json.dumps(answer.to_json(), ensure_ascii=False))
    else:
        _print_answer(Console(soft_wrap=True), answer)
    if draw is not None:
        draw_boxes(picture, answer.boxes).save(draw)
        typer.echo(f"drawn: {draw}", err=as_json)


def _settle_output() -> None:
    """Our log to standard error, and what the libraries below say to us rather than to a person left out.

    Their warnings stay, but for three: what will change in a later version of theirs, progress bars of reading and
    writing files, and TRL's page about each truncated completion (counted in our metrics as such).
    """
    log = logging.getLogger("opengrit")
    log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.set_name("opengrit's commands")
    log.handlers = [h for h in log.handlers if h.get_name() != handler.get_name()] + [handler]
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_says_something)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    silenced = are_progress_bars_disabled()
    disable_progress_bar()
    if not silenced:
        enable_progress_bars()  # the hub's own: a download takes minutes


def _says_something(line: logging.LogRecord) -> bool:
    """False for TRL's warning that a completion has no reward."""
    return "All reward functions returned None" not in line.getMessage()


def _wrong_option(error: ValidationError) -> str:
    problem = error.errors()[0]
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}; see opengrit eval --help"
    place = ".".join(str(part) for part in problem["loc"])
    rule = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place}: {rule}, got {problem['input']!r}; see opengrit eval --help"


def _check_drawing(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise RecipeError(f"--draw writes PNG or JPEG, got {path}; end its name in .png or .jpg")
    if os.path.lexists(path):
        raise RunError(f"nothing is overwritten, {path} exists; choose another name for --draw")
    if not os.path.isdir(path.parent):
        raise RunError(f"--draw writes into a folder that exists, {path.parent} is none; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RunError(
            f"--draw writes into a folder that can be written, {path.parent} cannot; choose another"
        )


def _print_answer(console: Console, answer) -> None:  # type: ignore[no-untyped-def]  # Answer is imported lazily
    from opengrit.ground import COLOURS

    text = Text(answer.transcript.text)
    for number, pointing in enumerate(answer.transcript.pointings):
        text.stylize(f"underline {COLOURS[number % len(COLOURS)]}", pointing.start, pointing.end)
    console.print(text)
    console.print()
    for box in answer.boxes:
        edges = ", ".join(f"{n:.0f}" for n in box.pixels)
        line = f"{box.number}. {box.label or 'box'} ({edges}) px, in the {box.section}"
        console.print(Text(line, style=COLOURS[(box.number - 1) % len(COLOURS)]))
    for rejected in answer.transcript.rejected:
        console.print(Text(f"not a box: {rejected.text} ({rejected.reason.value})", style="dim"))
    console.print(Text(f"answer: {answer.text if answer.text is not None else '(none)'}", style="bold"))
