"""A file or a folder that appears whole or not at all, and never in the place of another."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opengrit.core.errors import RunError
from opengrit.runs.folder import STAGED


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A place beside the target to write a file or to make a folder at, renamed to it after the block.

    Raises RunError where something is there already, or where the folder above cannot be written.
    """
    if os.path.lexists(target):
        raise RunError(f"what is there is never overwritten, {target} is; choose another --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=STAGED, dir=target.parent))
    except OSError as error:
        raise RunError(
            f"the folder to write to must be writable, {target.parent} is not ({error.strerror}); choose another --out"
        ) from error
    try:
        place = scratch / target.name
        yield place
        os.rename(place, target)
    finally:
        shutil.rmtree(scratch)


class JsonList:
    """A JSON list written one item at a time, by itself or as the one member of an object. Use as a context."""

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="\n")
        self._name, self._first = name, True

    def __enter__(self) -> JsonList:
        self._stream.write("[" if self._name is None else f"{{{json.dumps(self._name)}: [")
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.write("\n]\n" if self._name is None else "\n]}\n")
        self._stream.close()

    def write(self, item: str) -> None:
        """Add an item, which is JSON already."""
        self._stream.write("\n" if self._first else ",\n")
        self._stream.write(item)
        self._first = False
