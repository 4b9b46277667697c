"""Files and pictures that are not where they are looked for: where they are near by, or how they are fetched."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import yaml

from opengrit.core.errors import DataError
from opengrit.core.messages import first_few, nearest
from opengrit.data.benchmarks import BENCHMARKS

_LOOKED_FOR = 16  # pictures, at most
_FOLDERS, _ENTRIES = 64, 10_000  # looked into at most, and read of a folder at most
_OWN_OUT = Path("data")  # where opengrit data get writes without --out


def missing_pictures(
    missing: Iterable[str], *, total: int, source: str | Path, folder: str | Path
) -> DataError:
    """The error for pictures that are not there: how many of how many, in which folder, and what to do about it."""
    names = sorted(set(missing))
    shown = first_few(names, longest=200)
    return DataError(
        f"every row's picture must exist, {len(names)} of {total} named in {source} do not: {shown} (looked for in {folder}); "
        + remedy_for_pictures(source, names, folder=folder)
    )


def remedy_for_pictures(source: str | Path, missing: Sequence[str], *, folder: str | Path) -> str:
    """What to do about pictures that are not in `folder`: name the one near by that has them, fetch them, or look oneself."""
    near = folder_near(source, [os.path.relpath(path, folder) for path in missing[:_LOOKED_FOR]])
    if near is not None:
        return f"they are in {near}: {naming(source, near)}"
    return (
        fetching(folder)
        or fetching(source)
        or "give the folder that holds them with --images (images: in a recipe)"
    )


def missing_folder(source: str | Path, images: str | Path) -> DataError:
    """The error for a picture folder that is none."""
    beside = os.path.join(os.path.dirname(str(source)), str(images))
    near = nearest(os.path.basename(str(images)), _folders_in(_home(source)))
    found = beside if os.path.isdir(beside) else os.path.join(_home(source), near) if near else None
    if found is not None:
        remedy = (
            f"{'it is' if found == beside else 'did you mean'} {os.path.normpath(found)}: "
            f"{naming(source, os.path.normpath(found))}"
        )
    else:
        remedy = fetching(images) or (
            f"name the picture folder of {source} with --images (images: in a recipe)"
        )
    return DataError(f"images must be an existing folder, got {images}; {remedy}")


def missing_file(file: str | Path) -> DataError:
    """The error for a data file that is not there."""
    rule = f"a data file must be readable, {file} is not (No such file or directory)"
    if how := fetching(os.path.dirname(str(file))):
        return DataError(f"{rule}; {how}")
    names = [name for name in _names_in(_home(file)) if name.endswith(Path(file).suffix)]
    near = nearest(os.path.basename(str(file)), names)
    remedy = f"did you mean {os.path.join(os.path.dirname(str(file)), near)}?" if near else "check the path"
    return DataError(f"{rule}; {remedy}")


def naming(source: str | Path, folder: str) -> str:
    """How a picture folder is named on the command line and in a recipe."""
    written = yaml.safe_dump(
        {"file": str(source), "images": folder},
        default_flow_style=True,
        sort_keys=False,
        width=float("inf"),
        allow_unicode=True,
    )
    return f"give --images {shlex.quote(folder)} (in a recipe: {written.strip()})"


def fetching(path: str | Path) -> str:
    """How the data set is fetched in whose folder a path lies; "" where its folders have the name of none."""
    known = {benchmark.name for benchmark in BENCHMARKS}
    parts = Path(path).parts
    for index in reversed(range(len(parts))):
        if parts[index] in known:
            out = Path(*parts[:index])
            option = "" if out == _OWN_OUT else f" --out {shlex.quote(str(out))}"
            return f"fetch it: opengrit data get {parts[index]} --pictures{option}"
    return ""


def folder_near(file: str | Path, names: Sequence[str]) -> str | None:
    """The folder near a data file that has its pictures, of which `names` are the relative paths; None where none has.

    Looked into are the file's own folder and those right below it. The first few names are looked for: a folder that has
    only some of them is not theirs. Whatever cannot be read or looked up is passed over.
    """
    wanted = list(dict.fromkeys(name for name in names if name))[:_LOOKED_FOR]
    home = _home(file)
    for name in ("", *_folders_in(home)) if wanted else ():
        folder = os.path.normpath(os.path.join(home, name))
        if all(os.path.isfile(os.path.join(folder, one)) for one in wanted):
            return folder
    return None


def _home(file: str | Path) -> str:
    return str(file) if os.path.isdir(file) else os.path.dirname(str(file)) or os.curdir


def _folders_in(folder: str) -> list[str]:
    return list(
        islice((name for name in _names_in(folder) if os.path.isdir(os.path.join(folder, name))), _FOLDERS)
    )


def _names_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, _ENTRIES))
    except OSError:
        return []
