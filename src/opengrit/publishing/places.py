"""Text that goes to others without the places of this machine: paths become the names at their ends."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

_END = r"""[^\s`'"<>|:*?()\[\]{},;]"""  # a character that a path without spaces may have
# Not the second half of "and/or", of a URL, of a closing tag or of a fraction.
_PLACES = re.compile(
    rf"""
      file:/+ {_END}*
    | (?<![\w.<:/~)\]}}\\-]) ~?/ {_END}+
    | (?<![\w/]) (?:\.\./)+ {_END}*
    | (?<![\w]) [A-Za-z]:[\\/] {_END}*
    | (?<!\\) \\\\ [\w.$-]+ \\ {_END}*
    """,
    re.VERBOSE,
)


def places_in(text: str) -> list[str]:
    """What reads as a path of a machine: absolute, under a home folder, climbing, with a drive letter, or a file URL."""
    return [found.group() for found in _PLACES.finditer(text)]


def without_places(text: str, *, known: Iterable[str] = ()) -> str:
    """The text with each place replaced by the name at its end; `known` paths (which may hold spaces) go first."""
    for path in sorted({one for one in known if _is_place(one)}, key=len, reverse=True):
        # Whole: "/data" is no place in "https://example.org/data" and in "/datasets".
        whole = rf"(?:file:/*|(?<![\w.:~/-])){re.escape(path)}(?![\w-])"
        text = re.sub(whole, lambda found: last_name(found.group()), text)
    return _PLACES.sub(lambda found: last_name(found.group()), text)


def last_name(path: str) -> str:
    """The last name of a path or file URL, "a folder" where it has none (as "/" or "..")."""
    plain = path.removeprefix("file:").rstrip("/\\")
    name = (PureWindowsPath if "\\" in plain else Path)(plain).name
    return name if name not in ("", ".", "..", "~") and not name.endswith(":") else "a folder"


def _is_place(path: str) -> bool:
    """Whether a path can be replaced wherever it stands: it is absolute and names something below the root."""
    return len(path) > 1 and (Path(path).is_absolute() or PureWindowsPath(path).is_absolute())
