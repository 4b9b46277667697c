"""Where a run took its model and its data from, so that a later command finds the same ones from any working folder."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from opengrit.core.errors import RunError
from opengrit.core.numbered_files import all_of, next_free
from opengrit.data.tables.settings import TableSettings
from opengrit.runs.folder import write_atomically

ORIGIN = "origin.json"
_HASH_SHOWN = 12


class ModelKind(StrEnum):
    """What a model's name was."""

    PACKAGED = "packaged"
    FOLDER = "folder"
    HUB = "hub"
    ENDPOINT = "endpoint"
    UNKNOWN = "unknown"  # an earlier version noted a name and nothing else


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """A model: its name as it was asked for, what that was, and what tells it from another of that name.

    `path` is the absolute folder of a FOLDER; `sha256` is of its weights and configuration, and of its base's where it is
    an adapter; `revision` is the commit of a HUB model, where it was known.
    """

    name: str
    kind: ModelKind
    path: str | None = None
    sha256: str | None = None
    revision: str | None = None

    def is_another(self, other: ModelOrigin) -> bool:
        """Whether the two are known to be different models. A folder that has moved is the same one."""
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 != other.sha256
        if ModelKind.UNKNOWN in (self.kind, other.kind):
            return self.name != other.name
        if self.kind != other.kind:
            return True
        if None not in (self.revision, other.revision) and self.revision != other.revision:
            return True
        return self.kind is not ModelKind.FOLDER and self.name != other.name

    def __str__(self) -> str:
        mark = self.sha256 and f"SHA-256 {self.sha256[:_HASH_SHOWN]}"
        mark = mark or (self.revision and f"revision {self.revision[:_HASH_SHOWN]}")
        place = {
            ModelKind.PACKAGED: f"the packaged {self.name}",
            ModelKind.FOLDER: f"the folder {self.path or self.name}",
            ModelKind.HUB: f"{self.name} on the hub",
            ModelKind.ENDPOINT: f"{self.name} behind an endpoint",
            ModelKind.UNKNOWN: self.name,
        }[self.kind]
        return f"{place} ({mark})" if mark else place


@dataclass(frozen=True, slots=True)
class DataOrigin:
    """A data set: the set of rows it is a part of (as data.jsonl calls that), its name or file as it was asked for, the
    absolute path of the file or folder, its pictures' folder as it was asked for, and how it is read where it is a table.
    """

    rows: str
    spec: str
    path: str | None
    images: str | None
    table: dict[str, Any] | None = None  # the fields of TableSettings, where they say something


@dataclass(frozen=True, slots=True)
class CodeOrigin:
    """A file of the user's own that a run executed or asked with: its name, the copy in the run's folder, and its hash."""

    name: str
    kept: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run took things from. Paths in its recipe and its records start in `working_folder`."""

    working_folder: str
    model: ModelOrigin | None
    data: tuple[DataOrigin, ...] = ()
    own_code: tuple[CodeOrigin, ...] = ()


def data_origin(
    rows: str, spec: str, images: str | None, *, table: TableSettings | None = None
) -> DataOrigin:
    """Where a data set lies, seen from the working folder; `rows` is the set of rows it is a part of."""
    there = os.path.exists(spec) or (glob.has_magic(spec) and bool(glob.glob(spec, recursive=True)))
    said = table.model_dump(mode="json") if table is not None and table.says_something else None
    return DataOrigin(rows, spec, os.path.abspath(spec) if there else None, images, said)


def write_origin(folder: Path, now: Origin) -> None:
    """Note where a run takes things from, under the next free name; nothing where that was noted already."""
    if read_origin(folder) != now:
        beside = os.path.relpath(now.working_folder, folder.resolve())
        text = json.dumps(asdict(now) | {"working_folder_from_here": beside}, indent=2)
        write_atomically(next_free(folder / ORIGIN), text + "\n")


def read_origin(folder: Path) -> Origin | None:
    """Where a run last took things from; None where an earlier version wrote it.

    Where the run and its working folder have moved together, it is the working folder of now.
    Raises RunError where the file holds something else.
    """
    if not (folder / ORIGIN).is_file():
        return None
    path = all_of(folder / ORIGIN)[-1]
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        model = value["model"]
        found = Origin(
            value["working_folder"],
            None if model is None else ModelOrigin(**model | {"kind": ModelKind(model["kind"])}),
            tuple(DataOrigin(**one) for one in value["data"]),
            tuple(CodeOrigin(**one) for one in value.get("own_code", ())),
        )
        beside = (folder.resolve() / value["working_folder_from_here"]).resolve()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"a run's {ORIGIN} holds what opengrit wrote, {path} does not ({error}); move it away, and name the model and "
            "the pictures with --model and --images"
        ) from error
    if os.path.isdir(found.working_folder) or not beside.is_dir():
        return found
    return _moved(found, str(beside))


def _moved(origin: Origin, place: str) -> Origin:
    """The origin with what lay below its working folder in another one."""

    def moved(path: str | None) -> str | None:
        inside = path is not None and Path(path).is_relative_to(origin.working_folder)
        return str(place / Path(path).relative_to(origin.working_folder)) if path and inside else path

    model = origin.model
    return replace(
        origin,
        working_folder=place,
        model=model and replace(model, path=moved(model.path)),
        data=tuple(replace(one, path=moved(one.path)) for one in origin.data),
    )


# -- the pictures of a run's records ---------------------------------------------------------------------------------


def picture_paths(
    folder: Path, origin: Origin | None, paths: Sequence[str], *, images: Path | None
) -> dict[str, str]:
    """Where the pictures that a run's records name lie now, by the name; those that are not found are left out.

    With `images` they are looked for in that folder first, under their names below the folder that the run took them
    from, or their last names. A path that a record has is one of the run's working folder, never of another. Of a run
    that did not note its working folder, paths are tried from the working folder of now and from the folders above the run.
    """
    roots = [] if origin is None else _roots(origin)
    if origin is None:
        starts = ["", *(str(one) for one in folder.resolve().parents)]
    else:
        starts = [origin.working_folder if origin.working_folder != os.getcwd() else ""]
    found = {}
    for path in dict.fromkeys(paths):
        candidates = [] if images is None else _below(images, path, roots)
        candidates += [path] if os.path.isabs(path) else [os.path.join(start, path) for start in starts]
        there = next((one for one in candidates if os.path.isfile(one)), None)
        if there is not None:
            found[path] = there
    return found


def _roots(origin: Origin) -> list[str]:
    """The folders that picture paths start from, as the run wrote them."""
    found = [one.images or os.path.dirname(one.spec) for one in origin.data]
    return sorted({root for root in found if root}, key=len, reverse=True)


def _below(images: Path, path: str, roots: Sequence[str]) -> list[str]:
    inside = [os.path.relpath(path, root) for root in roots if Path(path).is_relative_to(root)]
    return [str(images / name) for name in (*inside, os.path.basename(path))]
