"""The file of rows that a person is making: each row is on the disk before it is said to be saved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from opengrit.core.errors import DataError, RunError
from opengrit.core.escaping import shortened
from opengrit.runs.lock import lock

_MARK = b"\xef\xbb\xbf"  # of UTF-8: editors write it, it says nothing


class FileChanged(RunError):
    """Another program has written the file since; nothing was written over it."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of the file. `id` names it for as long as the file is open; `line` is its text without the line end."""

    id: int
    line: bytes
    values: Mapping[str, Any]


class RowFile:
    """A JSONL file that one process adds to, corrects and removes from; made where there is none.

    A row is appended and flushed to the disk. A correction writes the whole file anew beside it and takes its place, so
    that at every moment the file holds all rows, old or new. Opening cuts off a last line that a crash left unfinished.
    Every method that writes raises FileChanged where another program has changed the file, and RunError where it cannot
    be written; the rows are then what they were.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunError where another process has the file open or it cannot be written, DataError where it holds
        something else than one JSON object a line.
        """
        self.path = path
        self._next_id = 1
        self._rows: list[StoredRow] = []
        self._open()
        try:
            self._cut_torn_line()
            self.reload()
        except (DataError, RunError, OSError):
            self.close()
            raise

    @property
    def rows(self) -> tuple[StoredRow, ...]:
        """The rows, in the order of the file."""
        return tuple(self._rows)

    @property
    def is_changed(self) -> bool:
        """Whether another program has written the file since."""
        return self._stamp_now() != self._stamp

    def reload(self) -> None:
        """Read the file as it is now; rows get new ids. Raises DataError as opening it does."""
        if not self.path.exists() or self._is_another():  # an editor has put another one there
            self.close()
            self._open()
        self._stream.seek(0)
        content = self._stream.read()
        rows = []
        for number, line in enumerate(content.removeprefix(_MARK).split(b"\n"), start=1):
            if line.strip():
                rows.append(StoredRow(self._take_id(), line.rstrip(b"\r"), self._values(line, number)))
        self._rows = rows
        if content and not content.endswith(b"\n"):
            self._write_out(b"\n")
        self._stamp = self._stamp_now()

    def append(self, values: Mapping[str, Any]) -> StoredRow:
        """The new row, which is on the disk."""
        self._require_unchanged()
        row = self._row(values)
        self._write_out(row.line + b"\n")
        self._stamp = self._stamp_now()
        self._rows.append(row)
        return row

    def replace(self, row: StoredRow, values: Mapping[str, Any]) -> StoredRow:
        """The row with other values, in its place."""
        new = StoredRow(row.id, _line(values), dict(values))
        self._rewrite([new if one.id == row.id else one for one in self._rows])
        return new

    def remove(self, row: StoredRow) -> None:
        """Take the row out."""
        self._rewrite([one for one in self._rows if one.id != row.id])

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        self._stream.close()

    def _open(self) -> None:
        with _writable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._locked(self.path)
            if self._is_another():  # the last writer has put a new file there between the two
                self._stream.close()
                self._stream = self._locked(self.path)
            self._staged.unlink(missing_ok=True)  # what a killed writer had not finished

    def _locked(self, path: Path) -> FileIO:
        stream = path.open("a+b", buffering=0)
        try:
            lock(
                stream.fileno(),
                refusal=f"one process writes a file of rows at a time, another one has {self.path} open; end that one first",
            )
        except RunError:
            stream.close()
            raise
        return stream

    def _is_another(self) -> bool:
        """Whether another file than the open one has its name now."""
        return os.stat(self.path).st_ino != os.fstat(self._stream.fileno()).st_ino

    @property
    def _staged(self) -> Path:
        place = self.path.resolve()  # a link stays one
        return place.with_name(f".{place.name}.new")

    def _cut_torn_line(self) -> None:
        """Cut off the beginning of a row at the end of the file: a crash has cut off the rest of it.

        A file that something else wrote, or a person by hand, is left as it is: reading it says what is wrong.
        """
        self._stream.seek(0)
        head, _, last = self._stream.read().rpartition(b"\n")
        if not last.startswith(b"{") or last.rstrip().endswith(b"}"):
            return
        for number, line in enumerate(head.removeprefix(_MARK).split(b"\n"), start=1):
            if line.strip():
                self._values(line, number)
        self._stream.truncate(len(head) + 1 if head else 0)

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _row(self, values: Mapping[str, Any]) -> StoredRow:
        return StoredRow(self._take_id(), _line(values), dict(values))

    def _values(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"every line is a row in JSON, line {number} of {self.path} is not ({error}); correct it, or name another "
                "--out"
            ) from error
        if not isinstance(values, dict):
            raise DataError(
                f"every line is a row, line {number} of {self.path} is {shortened(line.decode('utf-8', 'replace'), 40)!r}; "
                "correct it, or name another --out"
            )
        return values

    def _write_out(self, content: bytes) -> None:
        """Append to the file and flush it to the disk, or leave it as it was."""
        before = os.fstat(self._stream.fileno()).st_size
        with _writable(self.path):
            try:
                _write_all(self._stream, content)
            except OSError:
                self._stream.truncate(before)
                self._stamp = self._stamp_now()
                raise

    def _rewrite(self, rows: list[StoredRow]) -> None:
        self._require_unchanged()
        with _writable(self.path):
            stream = self._locked(self._staged)
            try:
                _write_all(stream, b"".join(row.line + b"\n" for row in rows))
                shutil.copymode(self.path, self._staged)
                os.replace(self._staged, self.path.resolve())
            except OSError:
                stream.close()
                self._staged.unlink(missing_ok=True)
                raise
            _sync_folder(self.path.parent)
        self._stream.close()
        self._stream = stream
        self._stamp = self._stamp_now()
        self._rows = rows

    def _require_unchanged(self) -> None:
        if self.is_changed:
            raise FileChanged(
                f"a file of rows is changed here or elsewhere, not in both, {self.path} has changed; nothing was saved, "
                "look at its rows as they are now and save again"
            )

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            now = os.stat(self.path)
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"a file of rows must be writable, {path} is not ({error.strerror}); check the folder and the free space"
        ) from error


def _write_all(stream: FileIO, content: bytes) -> None:
    """Write everything and flush it to the disk."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[stream.write(remaining) :]
    os.fsync(stream.fileno())


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
