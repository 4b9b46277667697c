"""TreeBench's one file, a table of tabs with pictures in base64: its rows in GRIT's form, and its pictures.

Columns as its makers' script reads them (github.com/Haochen-Wang409/TreeVGR): `index`, `image`, `question`, `multi-choice
options`, `answer` (a letter), `category`, `target_instances` (boxes in pixels of the original picture).
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opengrit.core.errors import DataError, ImageError, first_line
from opengrit.core.images import DEFAULT_LIMITS, open_any
from opengrit.data.pictures.kept import Wanted

_COLUMNS = ("index", "image", "question", "multi-choice options", "answer", "category", "target_instances")
_ROWS_AT_ONCE = 8  # each has a picture in it
_INSTRUCTION = "Answer with the letter of the right option."


def treebench_rows(source: Path, dataset: str) -> str:
    """TreeBench's table as GRIT's rows: the question with its options, the letter, the boxes, the picture's own size.

    Raises DataError for a file that is no such table, naming the row.
    """
    rows = []
    for number, line in enumerate(_lines(source), start=1):
        try:
            size = open_any(_picture(line)).size
            boxes = [
                [float(corner) for corner in box]
                for box in ast.literal_eval(line["target_instances"] or "[]")
            ]
            if any(len(box) != 4 for box in boxes):
                raise ValueError("a target has four corners")
        except (ValueError, SyntaxError, TypeError, RecursionError, ImageError) as error:
            raise DataError(
                f"a row of TreeBench has a picture and boxes, row {number} of {source} does not ({first_line(error)}); "
                "fetch it again"
            ) from error
        options = line["multi-choice options"].strip()
        parts = [f"{line['question'].strip()} Options:\n{options}" if options else line["question"].strip()]
        rows.append(
            {
                "question": "\n".join([*parts, _INSTRUCTION]),
                "answer": line["answer"].strip().upper(),
                "image": _name(line, number, source),
                "width": size[0],
                "height": size[1],
                "bboxs": boxes,
                "dataset": dataset,
                "category": line["category"],
            }
        )
    return "".join(json.dumps(row) + "\n" for row in rows)


def treebench_pictures(
    files: Sequence[Path], wanted: Sequence[Wanted]
) -> Iterator[tuple[Wanted, bytes, str]]:
    """The pictures in TreeBench's table, where the question is the row's too. Raises DataError for another table."""
    by_name = {picture.name: picture for picture in wanted}
    for file in files:
        for number, line in enumerate(_lines(file), start=1):
            picture = by_name.get(_name(line, number, file))
            if picture is None:
                continue
            if not any(question.startswith(line["question"].strip()) for _, question, _ in picture.asked):
                raise DataError(
                    f"a picture of TreeBench belongs to its question, row {number} of {file.name} asks another one than the row "
                    f"of {picture.name}; fetch rows and pictures from one release"
                )
            try:
                content = _picture(line)
            except ValueError as error:
                raise DataError(
                    f"a row of TreeBench has a picture, row {number} of {file} does not ({first_line(error)}); fetch it "
                    "again"
                ) from error
            yield picture, content, f"{file.name} (row {number})"


def _lines(file: Path) -> Iterator[dict[str, str]]:
    """The rows of the table, every value a text. Raises DataError for a file that is none, or lacks a column."""
    import pandas

    try:
        with pandas.read_csv(
            file, sep="\t", dtype=str, keep_default_na=False, chunksize=_ROWS_AT_ONCE
        ) as chunks:
            for chunk in chunks:
                missing = [name for name in _COLUMNS if name not in chunk.columns]
                if missing:
                    raise ValueError(f"it has no column {', '.join(missing)}")
                yield from chunk.to_dict("records")
    except (ValueError, OSError, pandas.errors.ParserError) as error:
        raise DataError(
            f"TreeBench is a tab-separated table, {file} is not ({first_line(error)}); fetch it again"
        ) from error


def _name(line: dict[str, str], number: int, file: Path) -> str:
    if not line["index"].isdecimal() or len(line["index"]) > 8:
        raise DataError(
            f"a row of TreeBench has a whole number as its index, row {number} of {file} has {line['index'][:40]!r}; fetch it again"
        )
    return f"{int(line['index']):04d}.jpg"


def _picture(line: dict[str, Any]) -> bytes:
    """A row's picture, as a file's bytes. Raises ValueError where it is none, or larger than a picture may be."""
    if len(line["image"]) > DEFAULT_LIMITS.max_bytes * 4 // 3 + 4:
        raise ValueError("its picture is too large")
    try:
        return base64.b64decode(line["image"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"its picture is not base64 ({error})") from error
