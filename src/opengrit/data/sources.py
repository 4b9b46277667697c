"""From the name of a data set to its examples: a file, a fetched benchmark or a packaged set. A new source goes here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from opengrit.core.errors import DataError, ImageError
from opengrit.core.images import open_picture
from opengrit.core.messages import first_lines
from opengrit.core.types import Example
from opengrit.data.benchmarks import BENCHMARKS
from opengrit.data.get import annotation_files
from opengrit.data.grit import ParsedFile, read, usable
from opengrit.data.missing import fetching, missing_pictures
from opengrit.data.tables import TableSettings, files_of, is_source, is_table, read_table

_STICKERS = "stickers/"
_LISTED = 10  # unreadable pictures named in one message


def read_source(
    file: str | Path,
    images: str | Path | None = None,
    *,
    table: TableSettings | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> ParsedFile:
    """Every row of one file, good and bad: GRIT's JSONL, or a table (`opengrit.data.tables`), which any file is where
    `table` says how to read it. `on_rows` is told how many rows of a JSONL file have been read, now and then.

    Raises DataError only where the file itself cannot be read.
    """
    if is_table(file) or (table is not None and table.says_something):
        return read_table(file, images=images, settings=table).parsed
    return read(file, images=images, on_rows=on_rows)


def load_examples(
    spec: str | Path, images: str | Path | None = None, *, table: TableSettings | None = None
) -> list[Example]:
    """The examples a recipe or a command names, every picture of theirs known to exist.

    `spec` is a packaged set ("stickers/train20"), the path of a GRIT JSONL file or of a table (.csv, .tsv, .xlsx, .parquet,
    .json, a folder that `datasets` saved), a folder of such files or a pattern ("mine/*.jsonl"), "hub:owner/name:split", or
    a folder that `opengrit data get` filled ("benchmarks/vsr"), whose files are taken together. `images` is the folder the
    image paths start from (default: the folder the file lies in; for a folder its "images", if there is one); `table`
    says what a table's columns and boxes are, where its names do not.

    Raises:
        DataError: the spec names nothing, rows are not what the format says (all listed), or pictures are missing.
    """
    name = str(spec)
    files = [str(file) for file in annotation_files(spec)] or (files_of(name) if is_source(name) else [])
    if files:
        own = os.path.join(spec, "images")
        root = images if images is not None else own if os.path.isdir(own) else None
        examples = [example for file in files for example in usable(read_source(file, root, table=table))]
        require_pictures(examples, spec, folder=root if root is not None else Path(files[0]).parent)
        return examples
    parent, base = os.path.split(os.path.normpath(name))
    if base in {known.name for known in BENCHMARKS}:
        path = os.path.join(parent or "data", base)
        raise DataError(
            f"a benchmark is named by the folder that `opengrit data get` wrote, got {name!r}, which it did not write; "
            + fetching(path)
            + ("" if path == os.path.normpath(name) else f" and name {path}")
        )
    if not name.startswith(_STICKERS):
        raise DataError(
            f"a data set is a packaged one (stickers/...) or a file that exists, got {name!r}; "
            + (
                fetching(name)
                or "check the name, give the path of a .jsonl file or a table, or name a folder that `opengrit data get` filled"
            )
        )
    if images is not None:
        raise DataError(
            f"a packaged set has its own pictures, got images={str(images)!r} with {name}; leave it out"
        )
    from opengrit.data import stickers  # draws its pictures on first use; a person's own data never needs it

    try:
        return stickers.examples(name)
    except OSError as error:
        raise DataError(
            f"a packaged set writes its pictures to a cache folder, {error.filename} cannot be written "
            f"({error.strerror}); set OPENGRIT_CACHE to a writable folder"
        ) from error


def require_pictures(examples: list[Example], source: str | Path, *, folder: str | Path) -> None:
    """Nothing; raises DataError naming the first few pictures that are not in the folder."""
    missing = sorted({e.image for e in examples if not os.path.isfile(e.image)})
    if missing:
        raise missing_pictures(missing, total=len({e.image for e in examples}), source=source, folder=folder)


def require_unique_ids(examples: Iterable[Example]) -> None:
    """Nothing; raises DataError naming the first id that occurs twice."""
    ids: set[str] = set()
    for example in examples:
        if example.id in ids:
            raise DataError(
                f"ids are unique in one run, {example.id!r} occurs more than once; name each file once, and give "
                "files of the same name in different folders different names"
            )
        ids.add(example.id)


def require_readable(examples: Sequence[Example]) -> None:
    """Nothing; raises DataError where ids are not unique or a picture does not decode, naming the first ones.

    Every distinct picture is decoded once, so that a damaged one is known before a model is loaded.
    """
    require_unique_ids(examples)
    images = list(dict.fromkeys(example.image for example in examples))
    damaged = [reason for reason in map(_damage, images) if reason is not None]
    if damaged:
        head = f"every row's picture must open, {len(damaged)} of {len(images)} do not:"
        raise DataError(first_lines(head, damaged, most=_LISTED, rest="`opengrit data check` lists them all"))


def _damage(image: str) -> str | None:
    """Why a picture cannot be shown to a model; None where it can."""
    try:
        open_picture(image)
    except ImageError as error:
        return str(error)
    return None
