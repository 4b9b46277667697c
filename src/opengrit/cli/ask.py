"""`opengrit ask`: one question about a picture, or many."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from typer import Argument

from opengrit.cli import options
from opengrit.core.errors import RecipeError, RunError
from opengrit.core.escaping import harmless
from opengrit.core.output import settle_output

if TYPE_CHECKING:
    from opengrit.inference.batch import AskOptions, BadRow, Row
    from opengrit.inference.grounder import Grounder
    from opengrit.runs.origin import ModelOrigin

_T = TypeVar("_T")
_PICTURE_FILES = (".png", ".jpg", ".jpeg")
_EXIT_FAILED = 1

_Image = Annotated[
    Path | None, Argument(help="Picture file, or a folder to ask the question about each of its pictures.")
]
_Question = Annotated[str | None, Argument(help="Question about the picture.")]
_ImageOption = Annotated[Path | None, options.data("--image", help="The same as IMAGE.")]
_QuestionOption = Annotated[str | None, options.data("--question", help="The same as QUESTION.")]
_Batch = Annotated[
    Path | None,
    options.data(
        metavar="FILE",
        help='JSONL file of questions, one line each: {"image": ..., "question": ..., "id": ...}.',
    ),
]
_Images = Annotated[
    Path | None,
    options.data(metavar="FOLDER", help="Picture folder of --batch (default: the file's own folder)."),
]
_Out = Annotated[
    Path | None,
    options.output(
        metavar="FILE",
        help="JSONL file for the answers of --batch or of a folder; answers already in it are not asked again.",
    ),
]
_Model = Annotated[
    str | None,
    options.model(
        help=f"{options.MODEL_HELP} (default: {options.PACKAGED}); with --endpoint, its name there."
    ),
]
_Json = Annotated[bool, options.output("--json", help="Print one JSON object.")]
_Draw = Annotated[
    Path | None,
    options.output(
        help="Write the picture with its boxes to this PNG or JPEG file; for many pictures, name a folder."
    ),
]


def ask(
    image: _Image = None,
    question: _Question = None,
    image_option: _ImageOption = None,
    question_option: _QuestionOption = None,
    batch: _Batch = None,
    images: _Images = None,
    model: _Model = None,
    endpoint: options.Endpoint = None,
    frame: options.Frame = None,
    max_pixels: options.MaxPixels = None,
    draw: _Draw = None,
    out: _Out = None,
    as_json: _Json = False,
    quiet: options.NoProgress = False,
    strategy: options.Strategy = "grounded",
    system: options.System = None,
    max_new_tokens: options.Length = 1000,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
) -> None:
    """Ask questions about pictures; the answers come with boxes.

    One picture: prints the model's text (token by token on a terminal), the boxes in pixels of the picture, and the answer.
    Many pictures (--batch or a folder): writes one line of JSON each, to standard output or to --out. The same command
    resumes an --out file; it refuses a file with answers of another model or to other settings, questions or pictures. A
    row that cannot be asked gets a line with its error, and the exit code is 1. The packaged models know emoji stickers
    only (opengrit data make stickers writes some).

    Examples:

        opengrit ask photos/0001.jpg "How many dogs are there?" \\
            --model mine/trained --draw answer.png

        opengrit ask --batch questions.jsonl --model mine/trained \\
            --out answers.jsonl --draw drawn/

        opengrit ask stickers/images/count-00003.png "How many flowers are there?"

        opengrit ask photos/ "How many people are there?" \\
            --endpoint http://127.0.0.1:8000/v1 --frame qwen2_5_vl
    """
    from opengrit.grounding.prompts import strategy_named
    from opengrit.inference.batch import AskOptions
    from opengrit.inference.grounder import Grounder

    image, question = _one_of(image, image_option, "IMAGE"), _one_of(question, question_option, "QUESTION")
    load = partial(
        Grounder.load,
        _source(model, endpoint),
        model=model if endpoint else None,
        strategy=strategy_named(strategy),
        system=system,
        frame=frame,
        max_pixels=max_pixels,
    )
    settings = AskOptions(max_new_tokens, temperature, seed, draw=draw, quiet=quiet)
    if batch is None and image is not None and question is not None and not os.path.isdir(image):
        if out is not None or images is not None:
            raise RecipeError("--out and --images belong to many questions, this is one; leave them out")
        _ask_one(load, image, question, settings, as_json=as_json)
        return
    if as_json:
        raise RecipeError(
            "--json prints the answer to one question, many are JSON lines already; leave it out"
        )
    if draw is not None and draw.suffix.lower() in _PICTURE_FILES:
        raise RecipeError(f"--draw names a folder where many questions are asked, got {draw}; name a folder")
    how: dict[str, Any] = {"strategy": strategy, "frame": frame, "max_pixels": max_pixels}
    how |= _how_of_own(strategy, system)
    how |= {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    name = None if endpoint else _source(model, endpoint)
    _ask_many(load, _rows(batch, images, image, question), settings, out, name=name, how=how)


def _how_of_own(strategy: str, system: str | None) -> dict[str, Any]:
    """What tells a prompt of the user's own, and a system text, from another; nothing where neither is asked with."""
    from opengrit.core.plugins import Reference, find, looks_own

    found: dict[str, Any] = {} if system is None else {"system": system}
    if looks_own(strategy):
        found["prompt_sha256"] = find(Reference(strategy)).sha256
    return found


def _one_of(argument: _T | None, option: _T | None, name: str) -> _T | None:
    if argument is not None and option is not None:
        raise RecipeError(
            f"{name} is given once, got {argument} and --{name.lower()} {option}; leave one of them out"
        )
    return option if argument is None else argument


def _source(model: str | None, endpoint: str | None) -> str:
    """What `Grounder.load` is given first: the endpoint, or the model in memory."""
    if endpoint is None:
        return model or options.PACKAGED
    if not endpoint.startswith(("http://", "https://")):
        raise RecipeError(
            f"--endpoint is an http or https address, got {endpoint!r}; write http://127.0.0.1:8000/v1"
        )
    return endpoint


def _rows(
    batch: Path | None, images: Path | None, image: Path | None, question: str | None
) -> list[Row | BadRow]:
    from opengrit.inference.answer import check_question
    from opengrit.inference.batch import read_rows, rows_of_folder

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


def _ask_one(
    load: Callable[[], Grounder], image: Path, question: str, settings: AskOptions, *, as_json: bool
) -> None:
    if settings.draw is not None:
        _check_drawing(settings.draw)
    from opengrit.core.images import open_picture
    from opengrit.inference.answer import check_question
    from opengrit.inference.terminal import print_boxes_and_answer, stream_text

    check_question(question)
    picture = open_picture(image)  # a picture that cannot be read is known before the model loads
    settle_output()
    grounder = load()
    how: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }
    if as_json:
        answer = grounder.ask(picture, question, **how)
        typer.echo(json.dumps(answer.as_json()))  # ASCII: what a model wrote steers no terminal
    else:
        console = Console(soft_wrap=True)
        answer = stream_text(console, grounder, picture, grounder.stream(picture, question, **how))
        print_boxes_and_answer(console, answer)
    if settings.draw is not None:
        grounder.draw(answer, picture).save(settings.draw)
        typer.echo(f"drawn: {settings.draw}", err=as_json)


def _ask_many(
    load: Callable[[], Grounder],
    rows: list[Row | BadRow],
    settings: AskOptions,
    out: Path | None,
    *,
    name: str | None,
    how: dict[str, Any],
) -> None:
    """`name` is the model's, None where it is behind an endpoint; `how` are the settings that decide what it answers."""
    from opengrit.inference import batch as asking
    from opengrit.inference.answered import HowAsked

    asked = HowAsked(_model_origin(name), how)
    results = asking.StdoutWriter(asked) if out is None else asking.JsonLinesWriter(out, rows, asked)
    for note in results.notes:
        typer.echo(f"note: {harmless(note)}", err=True)
    if out is None and sys.stdout.isatty():  # the answers scroll by; a bar would run through them
        settings = replace(settings, quiet=True)
    try:
        asking.check_drawings(settings.draw, [row for row in rows if row.id not in results.answered])
        if all(row.id in results.answered for row in rows):
            counts = asking.BatchCounts(asked=0, failed=0, skipped=len(rows))
        else:
            settle_output()
            grounder = load()
            # Of a hub id, the revision is known by now, and of an endpoint, the name.
            results.ask_with(_model_origin(name) or _served(grounder.model))
            counts = asking.ask_rows(grounder, rows, results, options=settings)
    finally:
        results.close()
    before = f", {counts.skipped} were answered before" if counts.skipped else ""
    typer.echo(f"asked: {counts.asked} ({counts.failed} failed){before}", err=True)
    if counts.failed:
        raise typer.Exit(_EXIT_FAILED)


def _model_origin(name: str | None) -> ModelOrigin | None:
    if name is None:
        return None
    from opengrit.models.identity import identity_of

    return identity_of(name)


def _served(name: str) -> ModelOrigin:
    from opengrit.runs.origin import ModelKind, ModelOrigin

    return ModelOrigin(name, ModelKind.ENDPOINT)


def _check_drawing(path: Path) -> None:
    if path.suffix.lower() not in _PICTURE_FILES:
        raise RecipeError(f"--draw writes PNG or JPEG, got {path}; end its name in .png or .jpg")
    if os.path.lexists(path):
        raise RunError(f"nothing is overwritten, {path} exists; choose another name for --draw")
    if not os.path.isdir(path.parent):
        raise RunError(f"--draw writes into a folder that exists, {path.parent} is none; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RunError(
            f"--draw writes into a folder that can be written, {path.parent} cannot; choose another"
        )
