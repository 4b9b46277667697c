"""A table written as GRIT's JSONL: all of its rows or none, and nothing that is there is overwritten."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opengrit.core.errors import DataError
from opengrit.core.messages import first_few
from opengrit.core.types import Example
from opengrit.data.doubts import Doubt
from opengrit.data.grit import write
from opengrit.data.tables.convert import ReadTable, read_table
from opengrit.data.tables.files import as_source
from opengrit.data.tables.settings import TableSettings

_NAMES = 12  # of missing pictures in one message
_VARYING = re.compile(r"\[[^\]]*\]|'[^']*'|\d+(?:\.\d+)?")  # what differs between rows that have one problem


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
        groups = _groups(read)
        bad = {row for group in groups for row in group.rows}
        head = f"every row of {read.parsed.file} must be usable, {len(bad)} of {read.parsed.rows} are not:"
        last = "correct them, or leave them out with --skip-bad-rows; nothing was written"
        super().__init__("\n".join([head, *(f"  {group}" for group in groups), last]))


@dataclass(frozen=True, slots=True)
class _Alike:
    """Rows that have one problem, and what is said of the first of them."""

    rows: tuple[int, ...]
    message: str
    exact: bool  # whether all of them are told in the same words

    def __str__(self) -> str:
        return f"{_named(self.rows)}: {self.message}" + (
            "" if self.exact else f" (this is row {self.rows[0]})"
        )


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
    with scratch_beside(pictures) as partial:
        embedded = partial / "pictures"
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
        notes.append(f"repeated rows (same picture, question and answer) are left out: {twice}")
    skipped = [f"left out: {group}" for group in _groups(read)]
    return Imported(tuple(examples), folder, str(read.columns), (*notes, *skipped), read.parsed.doubts)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """An empty folder beside a target, from which what is whole is moved there; gone after the block.

    Raises DataError where the folder above cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise DataError(
            f"the folder to write to must be writable, {target.parent} is not ({error.strerror}); choose another --out"
        ) from error
    with scratch as folder:
        yield Path(folder)


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


def _groups(read: ReadTable) -> list[_Alike]:
    """The problems that make rows unusable, by their first row; those that differ in numbers and names are alike.

    Where all boxes seem to be of another convention, that is the one problem that they have.
    """
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for problem in read.parsed.errors:
        if read.suspicion is not None and problem.field.startswith("bboxs"):
            found["bboxs"].append((problem.line, str(read.suspicion.doubt())))
            continue
        place = re.sub(r"\[\d+\]", "", problem.field)
        message = f"{place}: {problem.message}" if place else problem.message
        found[_VARYING.sub("#", message)].append((problem.line, message))
    names = list(dict.fromkeys(os.path.relpath(one.path, read.parsed.folder) for one in read.missing))
    if names:
        shown = first_few(names, most=_NAMES, longest=80)
        message = (
            f"image: a row's picture must be a file in {read.parsed.folder}, missing: {shown}; copy them there, or name "
            "their folder with --images"
        )
        found[message] = [(one.row, message) for one in read.missing]
    groups = []
    for problems in found.values():
        rows = tuple(sorted({row for row, _ in problems}))
        groups.append(_Alike(rows, problems[0][1], exact=len({message for _, message in problems}) == 1))
    return sorted(groups, key=lambda group: group.rows)


def _named(rows: Sequence[int]) -> str:
    if len(rows) == 1:
        return f"row {rows[0]}"
    if len(rows) > 2 and rows[-1] - rows[0] == len(rows) - 1:
        return f"rows {rows[0]} to {rows[-1]}"
    return f"rows {', '.join(map(str, rows))}"
