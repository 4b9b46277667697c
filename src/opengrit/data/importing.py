"""A table written as GRIT's JSONL: all of its rows or none, and nothing that is there is overwritten."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opengrit.core.errors import DataError
from opengrit.core.escaping import shortened
from opengrit.core.types import Example
from opengrit.data.doubts import Doubt
from opengrit.data.grit import write
from opengrit.data.rows import Severity
from opengrit.data.tables.convert import ReadTable, read_table
from opengrit.data.tables.files import as_source
from opengrit.data.tables.settings import TableSettings

_ROWS_NAMED = 12  # of those that have one problem


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import found. `images` is the folder that the rows' pictures are named from."""

    examples: tuple[Example, ...]
    images: Path
    columns: str
    notes: tuple[str, ...]  # what was done to the rows, and what was left out
    doubts: tuple[Doubt, ...]


class BadTable(DataError):
    """Rows of a table that cannot become GRIT's: every one of them is in the message, those with one problem together."""

    def __init__(self, read: ReadTable) -> None:
        groups = list(_groups(read))
        bad = {row for _, rows in groups for row in rows}
        head = (
            f"every row of {read.parsed.file} becomes one of GRIT's, {len(bad)} of {read.parsed.rows} cannot:"
        )
        lines = [f"  {_named(rows)}: {message}" for message, rows in groups]
        if read.suspicion is not None:
            lines.append(f"  {read.suspicion.doubt()}")
        lines.append("correct them, or leave them out with --skip-bad-rows; nothing is written")
        super().__init__("\n".join([head, *lines]))


def import_table(
    source: str,
    *,
    images: str | Path | None = None,
    settings: TableSettings | None = None,
    pictures: Path,
    skip_bad_rows: bool = False,
) -> Imported:
    """The rows of a source as GRIT's; pictures that the source itself holds are written to the folder `pictures`.

    A row that is there twice (picture, question and answers) is taken once.

    Raises:
        BadTable: rows cannot be used, and are not to be skipped; then nothing is written.
        DataError: the source cannot be read, its columns are not known, no row is left, or `pictures` is there already.
    """
    pictures.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{pictures.name}.", dir=pictures.parent) as partial:
        embedded = Path(partial) / "pictures"
        read = read_table(as_source(source), images=images, settings=settings, embedded=embedded)
        if (read.parsed.errors or read.missing) and not skip_bad_rows:
            raise BadTable(read)
        examples, twice = _once(read.parsed.examples)
        if not examples:
            raise BadTable(read)
        folder = Path(read.parsed.folder)
        if embedded.is_dir():
            if pictures.exists():
                raise DataError(
                    f"pictures are never overwritten, {pictures} exists; choose another --out, or move it away"
                )
            shutil.move(embedded, pictures)
            examples = [
                replace(one, image=str(pictures / Path(one.image).relative_to(embedded))) for one in examples
            ]
            folder = pictures
    notes = [*read.notes, *(str(problem) for problem in read.parsed.warnings)]
    if twice:
        notes.append(
            f"{twice} rows are there twice, with one picture, question and answer: one of each is taken"
        )
    skipped = [f"{_named(rows)} left out: {message}" for message, rows in _groups(read)]
    return Imported(tuple(examples), folder, str(read.columns), (*notes, *skipped), read.parsed.doubts)


def write_rows(examples: Sequence[Example], out: Path, *, images: Path) -> Path:
    """The new file with the rows, written whole or not at all. Raises DataError where there is one already."""
    if out.exists():
        raise DataError(f"data files are never overwritten, {out} exists; choose another name")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        write(examples, partial, images=images)
        os.link(partial, out)  # unlike a rename, never over a file that another process has just written
    except FileExistsError as error:
        raise DataError(f"data files are never overwritten, {out} exists; choose another name") from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def _once(examples: Sequence[Example]) -> tuple[list[Example], int]:
    found: dict[tuple[str, str, frozenset[str]], Example] = {}
    for example in examples:
        key = (example.image, " ".join(example.question.split()), frozenset(example.accepted))
        found.setdefault(key, example)
    return list(found.values()), len(examples) - len(found)


def _groups(read: ReadTable) -> Iterator[tuple[str, list[int]]]:
    """Each problem that makes rows unusable, and the rows that have it."""
    rows: dict[str, list[int]] = defaultdict(list)
    for problem in read.parsed.problems:
        if problem.severity is Severity.ERROR:
            rows[f"{problem.field}: {problem.message}" if problem.field else problem.message].append(
                problem.line
            )
    missing = [(one.row, os.path.relpath(one.path, read.parsed.folder)) for one in read.missing]
    if missing:
        names = list(dict.fromkeys(name for _, name in missing))
        shown = ", ".join(shortened(name) for name in names[:_ROWS_NAMED]) + (
            ", ..." if len(names) > _ROWS_NAMED else ""
        )
        rows[
            f"image: a row's picture is a file in {read.parsed.folder}, not there: {shown}; give the folder that holds them with --images"
        ] = [row for row, _ in missing]
    yield from rows.items()


def _named(rows: Sequence[int]) -> str:
    rows = sorted(set(rows))
    if len(rows) == 1:
        return f"row {rows[0]}"
    if len(rows) > 2 and rows[-1] - rows[0] == len(rows) - 1:
        return f"rows {rows[0]} to {rows[-1]}"
    return f"rows {', '.join(map(str, rows))}"
