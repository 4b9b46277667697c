"""Pictures out of the hub's parquet files: MathVista's by number, MME's by number once question and answer agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from opengrit.core.errors import DataError, first_line
from opengrit.core.images import DEFAULT_LIMITS
from opengrit.data.pictures.kept import Wanted

# Files (in any order, as many as there are so far) and wanted pictures -> those found, their bytes, and where they were.
TableReader: TypeAlias = Callable[[Sequence[Path], Sequence[Wanted]], Iterator[tuple[Wanted, bytes, str]]]

_MOST_BYTES_OF_A_GROUP = 4 * 2**30  # unpacked, as a file announces it
_ROWS_AT_ONCE = 16


def mathvista_pictures(
    files: Sequence[Path], wanted: Sequence[Wanted]
) -> Iterator[tuple[Wanted, bytes, str]]:
    """MathVista's: "N.png" is the picture of `pid` N, where the question is the row's too.

    Raises DataError for a file that is no such table, and where a question is another one.
    """
    by_pid = {picture.name.removesuffix(".png"): picture for picture in wanted}
    for file in files:
        for row in _rows(file, ["pid", "question", "decoded_image"]):
            picture = by_pid.get(str(row["pid"]))
            if picture is None:
                continue
            if not any(_plain(str(row["question"])) in _plain(question) for _, question, _ in picture.asked):
                raise DataError(
                    f"a picture of MathVista belongs to its question, pid {row['pid']} of {file.name} asks another one "
                    f"than the row of {picture.name}; use the release that GRIT's rows come from"
                )
            yield picture, _content(row["decoded_image"], file), f"{file.name} (pid {row['pid']})"


def mme_pictures(files: Sequence[Path], wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, bytes, str]]:
    """MME's: the n-th picture of a category, by number, is the category's n-th row, if every question and answer agree.

    A category of which the files hold another number of rows than are wanted is left for a call with more files.
    Raises DataError for a file that is no such table, and for a category whose questions or answers do not agree: a list
    that is shifted by one would show every question another picture.
    """
    by_category: dict[str, list[Wanted]] = defaultdict(list)
    for picture in sorted(wanted, key=lambda one: one.name):
        by_category[picture.asked[0][0].removeprefix("mme_")].append(picture)
    places: dict[str, list[tuple[Path, int, dict[str, Any]]]] = defaultdict(list)
    for file in sorted(files, key=lambda one: one.name):
        for number, row in enumerate(_rows(file, ["category", "question", "answer"])):
            places[str(row["category"])].append((file, number, row))
    paired: dict[tuple[Path, int], Wanted] = {}
    for category, pictures in by_category.items():
        found = places.get(category, [])
        if len(found) == len(pictures):
            for picture, (file, number, row) in zip(pictures, found, strict=True):
                _require_same_question(picture, row, file, number)
                paired[file, number] = picture
    for file in dict.fromkeys(file for file, _ in paired):
        for number, row in enumerate(_rows(file, ["image"])):
            if (named := paired.get((file, number))) is not None:
                yield named, _content(row["image"], file), f"{file.name} (row {number})"


def _require_same_question(picture: Wanted, row: dict[str, Any], file: Path, number: int) -> None:
    theirs = (_plain(str(row["question"])), _plain(str(row["answer"])).rstrip("."))
    ours = {(_plain(question), _plain(answer).rstrip(".")) for _, question, answer in picture.asked}
    if ours != {theirs}:
        raise DataError(
            f"a picture of MME belongs to its question and answer, row {number} of {file.name} differs from the row of "
            f"{picture.name}, so its whole category is skipped; use the release that GRIT's rows come from"
        )


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _content(cell: Any, file: Path) -> bytes:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes) or len(content) > DEFAULT_LIMITS.max_bytes:
        raise DataError(
            f"a picture in a table is a file's bytes, one in {file.name} is not; fetch the file again"
        )
    return content


def _rows(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, some columns of them. Raises DataError for one that is damaged or has them not."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            groups = (table.metadata.row_group(index) for index in range(table.num_row_groups))
            if any(group.total_byte_size > _MOST_BYTES_OF_A_GROUP for group in groups):
                raise ValueError("one of its row groups unpacks to more than 4 GB")
            missing = set(columns) - set(table.schema_arrow.names)
            if missing:
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, EOFError) as error:
        raise DataError(
            f"a table of pictures must be a complete Parquet file, {file} is not ({first_line(error)}); fetch it again"
        ) from error
