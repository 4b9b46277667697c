"""Many questions from a file or a folder, asked in batches; each answer is a line of JSON as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from opengrit.core.drawing import draw_boxes
from opengrit.core.errors import DataError, RunError
from opengrit.core.images import confined, open_picture
from opengrit.core.progress import progress_bar
from opengrit.inference.answer import Answer, Unanswered
from opengrit.inference.answered import ASKED, BadRow, HowAsked, Row, read_answered, rest_of
from opengrit.inference.grounder import Grounder
from opengrit.runs.jsonl import LineWriter
from opengrit.runs.origin import ModelOrigin

_PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
_BATCH_SIZE = 32
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ResultWriter(Protocol):
    """Where results go, a JSON object a line; `answered` are the ids with an answer there already."""

    answered: frozenset[str]
    notes: tuple[str, ...]
    how: HowAsked

    def ask_with(self, model: ModelOrigin) -> None: ...

    def write(self, result: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class StdoutWriter:
    """Writes results to standard output."""

    answered: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __init__(self, how: HowAsked | None = None) -> None:
        self.how = HowAsked() if how is None else how

    def ask_with(self, model: ModelOrigin) -> None:
        """Say which model is asked."""
        self.how = replace(self.how, model=model)

    def write(self, result: dict[str, Any]) -> None:
        """Print the result and flush, so that the next program in a pipe has it at once."""
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is left open."""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How the questions are asked, and the folder for the drawn pictures, if any."""

    max_new_tokens: int
    temperature: float
    seed: int
    draw: Path | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How many questions were asked, how many of these failed, and how many had an answer before."""

    asked: int
    failed: int
    skipped: int


def read_rows(path: Path, *, images: Path | None = None) -> list[Row | BadRow]:
    """The questions of a JSONL file: `{"image": "a.png", "question": "...", "id": "..."}` a line, other keys are ignored.

    Pictures are in `images`, or beside the file. A row without id gets "line" and its number as id; empty lines are
    skipped. A line without a question is a `BadRow`. Raises DataError where there is no file, no row, or an id twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--batch is a JSONL file in UTF-8, {path} is not ({error}); check its name"
        ) from error
    root = path.parent if images is None else images
    rows = [_row(line, number, root) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"--batch holds one question a line, {path} is empty; write one")
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(
                f"an id occurs once in a file, {row.id!r} occurs twice in {path}; change one of them"
            )
        seen.add(row.id)
    return rows


def rows_of_folder(folder: Path, question: str) -> list[Row | BadRow]:
    """The same question about every picture file in a folder, by name; a row's id is the file's name."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICTURES and p.is_file())
    if not names:
        raise DataError(
            f"a folder of pictures holds files named {', '.join(sorted(_PICTURES))}, {folder} holds none; name another "
            "folder"
        )
    return [Row(name, str(folder / name), name, question) for name in names]


def _row(line: str, number: int, root: Path) -> Row | BadRow:
    unnamed = f"line {number}"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(unnamed, f"a row is one line of JSON, line {number} is not ({error}); fix it")
    if not isinstance(value, dict):
        return BadRow(unnamed, f"a row is a JSON object, line {number} is not; fix it")
    given = value.get("id")
    row_id = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else unnamed
    for key in ("image", "question"):
        if not isinstance(value.get(key), str):
            return BadRow(row_id, f"a row has text under {key!r}, line {number} does not; add it")
    try:
        image = str(confined(value["image"], root))
    except DataError as error:
        return BadRow(row_id, str(error))
    return Row(row_id, image, value["image"], value["question"], rest_of(value))


class JsonLinesWriter:
    """Appends results to a file, after reading which ids it answers already.

    A result with an error is no answer: its question is asked again, and the later line counts. `notes` says what is not
    as it was and does no harm.
    """

    def __init__(self, path: Path, rows: Sequence[Row | BadRow], how: HowAsked | None = None) -> None:
        """Raises DataError for a file of something else, of answers to other questions, of another model, or asked in
        another way; RunError if unwritable.
        """
        self.how = HowAsked() if how is None else how
        self._path = path
        self._found = read_answered(path, rows, self.how)
        self.answered, self.notes = self._found.ids, self._found.notes
        self._writer = LineWriter(path)

    def ask_with(self, model: ModelOrigin) -> None:
        """Say which model is asked, where that was not known before. Raises DataError where another gave the answers."""
        self._found.check_model(self._path, model)
        self.how = replace(self.how, model=model)

    def write(self, result: dict[str, Any]) -> None:
        self._writer.write_metrics(result)

    def close(self) -> None:
        self._writer.close()


def ask_rows(
    grounder: Grounder, rows: Sequence[Row | BadRow], out: ResultWriter, *, options: AskOptions
) -> BatchCounts:
    """Ask what is not answered yet, batch by batch, and write each result to `out` in the order of the rows.

    A result is an `Answer` as JSON with the row's id and image; a bad row or picture is one with an `error`.
    """
    unanswered = [row for row in rows if row.id not in out.answered]
    failed = 0
    with progress_bar(options.quiet) as progress:
        task = progress.add_task("asking", total=len(rows), completed=len(rows) - len(unanswered))
        for start in range(0, len(unanswered), _BATCH_SIZE):
            batch = unanswered[start : start + _BATCH_SIZE]
            for result in _results(grounder, batch, options, out.how):
                failed += "error" in result
                out.write(result)
                if "drawn" in result:
                    _marker_of(Path(result["drawn"])).unlink(missing_ok=True)
            progress.advance(task, len(batch))
    return BatchCounts(asked=len(unanswered), failed=failed, skipped=len(rows) - len(unanswered))


def _results(
    grounder: Grounder, batch: Sequence[Row | BadRow], options: AskOptions, how: HowAsked
) -> Iterator[dict[str, Any]]:
    good = [row for row in batch if isinstance(row, Row)]
    answers = iter(
        grounder.ask_many(
            [(row.image, row.question) for row in good],
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
            batch_size=_BATCH_SIZE,
            quiet=True,
        )
    )
    for row in batch:
        match row:
            case BadRow(id=row_id, reason=reason):
                yield {"id": row_id, "error": reason}
            case Row():
                result = {"id": row.id, "image": row.image_name} | _result(row, next(answers), options.draw)
                yield result if "error" in result else result | {ASKED: how.of_row(row)}


def _result(row: Row, answer: Answer | Unanswered, draw: Path | None) -> dict[str, Any]:
    if draw is None or isinstance(answer, Unanswered):
        return answer.as_json()
    path = drawing_path(draw, row.id)
    _marker_of(path).touch()
    draw_boxes(open_picture(row.image), answer.boxes).save(path)
    return answer.as_json() | {"drawn": str(path)}


def drawing_path(folder: Path, row_id: str) -> Path:
    """Where a row's drawing goes: its id in plain letters, with a part of its digest where letters were replaced."""
    plain = _PLAIN_NAME.sub("_", row_id).strip(".")[:100]
    if plain != row_id or not plain:
        plain += "-" + hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return folder / f"{plain}.png"


def _marker_of(drawing: Path) -> Path:
    """The empty file beside a drawing whose line is not written yet: after a kill, the drawing is made again."""
    return drawing.with_name(f".{drawing.name}.begun")  # no drawing's name starts with a full stop


def check_drawings(folder: Path | None, rows: Sequence[Row | BadRow]) -> None:
    """Make the folder of the drawings. Raises RunError where it cannot be, or a drawing would be overwritten.

    A drawing whose line was never written, because the run ended between the two, may be made again.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"--draw is a folder when there are many pictures, {folder} cannot be a folder ({error.strerror}); choose "
            "another"
        ) from error
    for row in rows:
        path = drawing_path(folder, row.id)
        if os.path.lexists(path) and not os.path.lexists(_marker_of(path)):
            raise RunError(f"nothing is overwritten, {path} exists; choose another folder for --draw")
