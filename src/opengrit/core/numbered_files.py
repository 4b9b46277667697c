"""Files that are never overwritten: a later one gets the next free number in its name."""

from __future__ import annotations

from pathlib import Path


def all_of(path: Path) -> list[Path]:
    """The file and those that were written later under the next free names, in order."""
    found = [path]
    while (later := _numbered(path, len(found) + 1)).exists():
        found.append(later)
    return found


def next_free(path: Path) -> Path:
    """The path, or where it is taken the same with the next number before its suffix."""
    return _numbered(path, len(all_of(path)) + 1) if path.exists() else path


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
