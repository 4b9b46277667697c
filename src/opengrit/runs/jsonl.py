"""JSONL files of a run: whole lines, appended by one writer and read back without a torn last one."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from opengrit.core.errors import RunError
from opengrit.core.records import to_line
from opengrit.core.types import Record
from opengrit.runs.lock import lock

REMEDY = "remove that line: an evaluation asks its question again"


class LineWriter:
    """Appends whole lines to a JSONL file, each flushed as it is written. One writer a file at a time.

    Opening cuts off a last line that a crash left without its newline.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stream: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise RunError(
                f"a run's files must be writable, {path} is not ({error.strerror}); check the folder"
            ) from error
        try:
            # A second writer would cut the first one's unfinished line.
            lock(
                self._stream.fileno(),
                refusal=(
                    f"only one process at a time writes a run, another one is writing {path}; wait until it ends"
                ),
            )
            _cut_torn_line(self._stream)
        except (RunError, OSError):
            self._stream.close()
            raise

    def write_record(self, record: Record) -> None:
        """Appends a record. Raises ValueError for one that holds NaN or an infinity."""
        self._write(to_line(record))

    def write_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends a row of metrics. A number that is not finite is written as null, since JSON has none."""
        self._write(json.dumps(_finite(row), allow_nan=False))

    def close(self) -> None:
        """Lets go of the file; closing twice is harmless."""
        self._stream.close()

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        remaining = memoryview(line.encode("utf-8") + b"\n")
        try:
            while remaining:
                remaining = remaining[self._stream.write(remaining) :]
        except OSError as error:
            raise RunError(
                f"a run must be able to write, {self._path} failed ({error.strerror}); free some space"
            ) from error


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, a torn last one left out; nothing where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            yield number, line


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and JSON objects of a JSONL file; nothing where there is no file. A torn last line is left out."""
    for number, line in _whole_lines(path):
        yield number, _object(line, number, path)


def _object(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunError(f"every line is JSON, line {number} of {path} is not ({error}); {REMEDY}") from error
    if not isinstance(value, dict):
        raise RunError(f"every line is a JSON object, line {number} of {path} is not; {REMEDY}")
    return value


_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')


def read_ids(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and the values of "id" of a JSONL file, a torn last line left out.

    A line that begins with its id, as ours do, is not read any further.
    """
    for number, line in _whole_lines(path):
        found = _ID.match(line)
        if found is not None:
            yield number, json.loads(found[1])
        else:  # "id" stands elsewhere, or the line is not ours
            value = _object(line, number, path)
            yield number, str(value.get("id"))


def check_lines(path: Path, *, keys: Sequence[str] = ()) -> None:
    """Raise RunError for a line that is no JSON object with these keys, but for a torn last one.

    A training appends to its files and would never read what is wrong in them.
    """
    for number, value in read_objects(path):
        missing = [key for key in keys if key not in value]
        if missing:
            raise RunError(
                f"every line must come from opengrit, line {number} of {path} does not (it has no {missing[0]!r}); "
                f"{REMEDY}"
            )


def _cut_torn_line(stream: BinaryIO) -> None:
    end = stream.seek(0, os.SEEK_END)
    block = 65536
    position = end
    while position > 0:
        start = max(0, position - block)
        stream.seek(start)
        newline = stream.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position != end:
        stream.truncate(position)
    stream.seek(0, os.SEEK_END)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
