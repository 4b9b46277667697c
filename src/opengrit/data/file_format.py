"""The lines of a data file; a file that holds something else than one JSON object a line is told what it is, once."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opengrit.core.errors import DataError
from opengrit.core.escaping import shortened

_MARK = b"\xef\xbb\xbf"  # of UTF-8: editors write it, it says nothing
_NAMED = "give it the matching extension: cp {file} {file}"
_PACKED = {  # by their first bytes: what it is, and how to get lines out of it
    b"\x1f\x8b": ("gzip", "unpack it: gunzip -k {file}"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", f"unpack it: unzip {{file}}, or {_NAMED}.xlsx"),
    b"BZh": ("bzip2", "unpack it: bunzip2 -k {file}"),
    b"\xfd7zXZ": ("xz", "unpack it: unxz -k {file}"),
    b"PAR1": ("Parquet", f"{_NAMED}.parquet"),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 {file} > {file}.jsonl"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 {file} > {file}.jsonl"),
}
_MOST_BYTES = 64 * 2**20  # of a file that is parsed as a whole to say what it is


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbers, from 1, and content of the lines that hold something; a byte order mark and line ends are not content.

    Lines end with a newline (JSON strings may hold the other line separators of Unicode), or, in a file without one,
    with a carriage return. Raises DataError where the file cannot be read, or is of another format.
    """
    content = _content(path)
    _require_lines(path, content)
    yield from _split(content)


def split_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """As `lines_of`, whatever the lines hold. Raises DataError where the file cannot be read."""
    return _split(_content(path))


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise DataError(
                f"a data file must be a file, {path} is a folder or a device; name the .jsonl file in it"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"a data file must be readable, {path} is not ({error.strerror}); check the path"
        ) from error


def _split(content: bytes) -> Iterator[tuple[int, bytes]]:
    """A line at a time: a large file is in memory once."""
    end = b"\n" if b"\n" in content else b"\r"
    start, number = len(_MARK) if content.startswith(_MARK) else 0, 0
    while start <= len(content):
        stop = content.find(end, start)
        stop = len(content) if stop < 0 else stop
        line, number, start = content[start:stop], number + 1, stop + 1
        if line.strip():
            yield number, line


def _require_lines(path: Path, content: bytes) -> None:
    for start, (name, remedy) in _PACKED.items():
        if content.startswith(start):
            raise _other(path, name, remedy)
    text = content.removeprefix(_MARK).lstrip()
    first = text.partition(b"\n")[0].strip()
    if text.startswith(b"[") or (text.startswith(b"{") and not first.endswith(b"}")):
        if len(content) <= _MOST_BYTES and _is_json(text):
            raise _other(path, "one JSON document", f"{_NAMED}.json")
    elif not text.startswith(b"{"):
        _require_no_table(path, first)


def _require_no_table(path: Path, first: bytes) -> None:
    """A first line of names is that of a table."""
    try:
        header = first.decode("utf-8")
    except UnicodeDecodeError:
        return
    for separator in (",", "\t", ";"):
        names = next(csv.reader([header], delimiter=separator), [])
        if len(names) > 1 and all(
            name.strip().replace("_", "a").replace(" ", "a").isalnum() for name in names
        ):
            raise _other(
                path,
                f"a table with the columns {shortened(', '.join(names))}",
                f"{_NAMED}.csv",
            )


def _is_json(text: bytes) -> bool:
    """Whether the text is one JSON document of several lines or of rows; a line of numbers is no such document."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) or (
        isinstance(found, list) and any(isinstance(row, dict) for row in found)
    )


def _other(path: Path, name: str, remedy: str) -> DataError:
    remedy = re.sub(r"\{file\}(\.\w+)?", lambda found: shlex.quote(f"{path}{found[1] or ''}"), remedy)
    return DataError(f"a data file holds one JSON object a line, {path} is {name}; {remedy}")


class DuplicateKey(ValueError):
    """A key occurs twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, for json's `object_pairs_hook`. Raises DuplicateKey for a key that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(next(key for place, key in enumerate(keys) if key in keys[:place]))
    return found
