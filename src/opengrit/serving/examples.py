"""The page's examples: questions about pictures of the run that is served where it has its own, else about stickers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from opengrit.core.errors import DataError, ImageError, OpenGritError
from opengrit.core.images import Limits, open_picture
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.recipes import Data, Source
from opengrit.runs.folder import RECIPE, RunDir
from opengrit.runs.origin import read_origin

_log = logging.getLogger(__name__)

_SHOWN = 6
_STICKERS = (33, 38, 43, 40, 23, 28)  # three questions of counting, three of place
_LARGEST_FILE = 64 * 2**20  # bytes: a longer file of rows would hold up the server's start


@dataclass(frozen=True, slots=True)
class PageExample:
    """A picture's file and a question to try on it."""

    content: bytes
    question: str
    name: str = "example"


@dataclass(frozen=True, slots=True)
class PageExamples:
    """Questions to try, and a sentence on where they come from."""

    examples: tuple[PageExample, ...]
    source: str


def sticker_examples() -> PageExamples:
    """Six questions about stickers: three of counting, three of place."""
    from opengrit.data.stickers.sets import asked, png_bytes
    from opengrit.data.stickers.world import draw

    questions = asked("dev")
    examples = tuple(
        PageExample(png_bytes(draw(questions[i].scene)), questions[i].question, f"stickers-{i}")
        for i in _STICKERS
    )
    return PageExamples(examples, "Stickers that no packaged model was trained on.")


def run_examples(model: str, *, name: str, limits: Limits) -> PageExamples | None:
    """Up to six questions from the files of the run that a model's folder belongs to, or None where there are none.

    Rows that the run measures with come before rows that it learned from; `name` is what the page calls the model. The
    folder is a run's, its `final` or one of its checkpoints. Packaged sets and hub data sets are left out; what cannot be
    read any more, or is over the limits, is logged and left out.
    """
    run = _run_of(Path(model))
    if run is None:
        return None
    try:
        origin, data = read_origin(run.path), Data.model_validate(yaml.safe_load(run.recipe)["data"])
    except (OpenGritError, ValidationError, LookupError, TypeError, ValueError) as error:
        _log.info("%s gives the page no examples: %s", run.path, error)
        return None
    folder = "" if origin is None else origin.working_folder
    for sources, said in ((data.eval, "was not trained on"), (data.train, "was trained on")):
        found = list(_read(sources, folder, limits))
        if found:
            return PageExamples(tuple(found), f"From this run's own data, which {name} {said}.")
    return None


def _run_of(model: Path) -> RunDir | None:
    """The run whose folder, final model or checkpoint this is."""
    path = model.expanduser().absolute()
    found = next((one for one in (path, path.parent, path.parent.parent) if (one / RECIPE).is_file()), None)
    return None if found is None or not path.is_dir() else RunDir(found)


def _read(sources: Sequence[Source], folder: str, limits: Limits) -> Iterator[PageExample]:
    """Examples from all over these sources, which a run in that working folder used; a picture at most once."""
    rows: list[Example] = []
    for source in sources:
        file = os.path.join(folder, source.file or "")
        if source.file is None or (os.path.isfile(file) and os.path.getsize(file) > _LARGEST_FILE):
            continue
        images = None if source.images is None else os.path.join(folder, source.images)
        try:
            rows += load_examples(file, images, table=source.table)
        except DataError as error:
            _log.warning("the page has no examples from %s: %s", source.file, str(error).splitlines()[0])
    rows = list({row.image: row for row in rows}.values())
    step = max(1, len(rows) // _SHOWN)
    for row in rows[::step][:_SHOWN]:
        try:
            open_picture(row.image, limits=limits)
            content = Path(row.image).read_bytes()
        except (ImageError, OSError) as error:
            _log.warning("the page has no example from %s: %s", row.image, error)
            continue
        yield PageExample(content, row.question, Path(row.image).stem)
