"""GRIT's JSONL, exactly as released: rows in, validated examples out, and every problem named at once.

One JSON object a line: `question`, `answer` (string, number, or a list of numbers), `image` (relative path),
`width`, `height` (pixels), `bboxs` ([left, top, right, bottom] in pixels of the original picture; may be empty or
absent), `dataset`, `split`, `key_words` (a string or a list of strings), `also_accepted` (other answers that are right
too). Other fields are ignored.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError
from opengrit.core.escaping import shortened
from opengrit.core.messages import first_lines
from opengrit.core.types import Example
from opengrit.data.doubts import Doubt, find_doubts
from opengrit.data.file_format import lines_of
from opengrit.data.missing import missing_file, missing_folder, missing_pictures
from opengrit.data.problems import Problem, Severity, told_once
from opengrit.data.rows import Row

log = logging.getLogger(__name__)

_MESSAGE_LINES, _MESSAGE_WIDTH = 50, 1000
_ROWS_TOLD = 1000  # between two reports of progress


class BadRows(DataError):
    """Rows that are not what the format says; `problems` holds every one of them."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        self.file = file
        self.problems = problems
        count = len({p.line for p in problems})
        head = (
            f"every row must follow GRIT's format, {'1 row does' if count == 1 else f'{count} rows do'} not:"
        )
        rest = f"`opengrit data check {file}` lists them all"
        super().__init__(
            first_lines(
                head,
                [shortened(text, _MESSAGE_WIDTH) for _, text in told_once(problems)],
                most=_MESSAGE_LINES,
                rest=rest,
            )
        )


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file read to its end: the usable examples and every problem, in the order of the lines."""

    file: str
    rows: int  # lines that should hold a row
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    folder: str = ""  # that image paths start from
    missing: tuple[
        str, ...
    ] = ()  # of each row without a size: the picture that would say it, and is not there
    doubts: tuple[Doubt, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that make a row unusable."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that were repaired."""
        return tuple(p for p in self.problems if p.severity is Severity.WARNING)


def load(
    file: str | Path, *, images: str | Path | None = None, on_problem: Callable[[Problem], None] | None = None
) -> list[Example]:
    """The examples of a GRIT JSONL file, in order; each id is "<file's stem>:<line>".

    `images` is the folder image paths start from (default: the file's own folder). A box that overhangs the
    picture by a pixel is clipped; one that overhangs a little more is clipped and handed to `on_problem`
    (default: logged as a warning). Pictures are opened only for rows without `width` and `height`.

    Raises:
        BadRows: some rows are not what the format says; all their problems are in it.
        DataError: the file cannot be read or holds no row.
    """
    return usable(read(file, images=images), on_problem=on_problem)


def usable(reading: ParsedFile, *, on_problem: Callable[[Problem], None] | None = None) -> list[Example]:
    """The examples of a file that was read, where all its rows can be used; raises and logs as `load` does."""
    if reading.errors:
        raise BadRows(reading.file, reading.errors)
    if reading.missing:
        pictures = {*reading.missing, *(example.image for example in reading.examples)}
        raise missing_pictures(
            reading.missing, total=len(pictures), source=reading.file, folder=reading.folder
        )
    for doubt in reading.doubts:
        if doubt.misleads:
            log.warning("%s: %s", reading.file, doubt)
    for problem in reading.warnings:
        if on_problem is None:
            log.warning("%s", problem)
        else:
            on_problem(problem)
    return list(reading.examples)


def read(
    file: str | Path, *, images: str | Path | None = None, on_rows: Callable[[int], None] | None = None
) -> ParsedFile:
    """Everything in a GRIT JSONL file, good rows and bad. Raises DataError only where the file itself is unreadable.

    `on_rows` is told how many rows have been read, now and then.
    """
    path = Path(file)
    if not os.path.lexists(path):
        raise missing_file(path)
    root = path.parent if images is None else Path(images)
    if images is not None and not root.is_dir():
        raise missing_folder(path, root)
    examples, problems, missing, boxes, rows = [], [], [], [], 0
    confined: dict[str, str] = {}
    for line, raw in lines_of(path):
        rows += 1
        row = Row(file=str(path), line=line, root=root, dataset=path.stem, confined=confined)
        example = row.example(raw)
        problems.extend(row.problems)
        boxes.extend(row.boxes)
        if row.missing is not None:
            missing.append(row.missing)
        if example is not None:
            examples.append(example)
        if on_rows is not None and rows % _ROWS_TOLD == 0:
            on_rows(rows)
    if rows == 0:
        raise DataError(f"a data file holds at least one row, {path} is empty; write one JSON object a line")
    return ParsedFile(
        file=str(path),
        rows=rows,
        examples=tuple(examples),
        problems=tuple(problems),
        folder=str(root),
        missing=tuple(missing),
        doubts=find_doubts(examples, boxes),
    )


def write(examples: Iterable[Example], out: str | Path, *, images: str | Path | None = None) -> Path:
    """The path of a new GRIT JSONL file with these examples; their pictures stay where they are.

    Image paths are written relative to `images` (default: the new file's folder).

    Raises:
        DataError: the file exists already, there is nothing to write, or a picture lies outside `images`.
    """
    out = Path(out)
    root = (out.parent if images is None else Path(images)).resolve()
    lines = [json.dumps(_as_row(e, root), ensure_ascii=False, allow_nan=False) + "\n" for e in examples]
    if not lines:
        raise DataError(f"a data file holds at least one row, got none for {out}; pass examples")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines)
    except FileExistsError as error:
        raise DataError(f"data files are never overwritten, {out} exists; choose another name") from error
    return out


def _as_row(example: Example, root: Path) -> dict[str, Any]:
    # A symbolic link inside the folder keeps its name, so only the part above it is followed.
    image = Path(example.image)
    absolute = image.parent.resolve() / image.name
    if not absolute.is_relative_to(root):
        raise DataError(
            f"a written row's picture must be inside {root}, {example.image} is not; pass images=FOLDER"
        )
    size, count = example.picture_size, example.count
    row: dict[str, Any] = {
        "question": example.question,
        "answer": count if count is not None and str(count) == example.answer else example.answer,
        "image": absolute.relative_to(root).as_posix(),
        "width": size.width,
        "height": size.height,
        "dataset": example.dataset,
    }
    if example.boxes_known:
        row["bboxs"] = [_pixels(box, size) for box in example.boxes]
    if example.key_words:
        row["key_words"] = example.key_words[0] if len(example.key_words) == 1 else list(example.key_words)
    if example.also_accepted:
        row["also_accepted"] = list(example.also_accepted)
    if example.split is not None:
        row["split"] = example.split
    return row


def _pixels(box: Box, size: Size) -> list[float | int]:
    """A box in pixels, to a ten-thousandth of a pixel, whole numbers without a point."""
    rounded = (round(corner, 4) for corner in box.to_pixels(size))
    return [int(corner) if corner.is_integer() else corner for corner in rounded]
