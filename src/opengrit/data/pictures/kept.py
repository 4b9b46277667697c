"""The folder of a benchmark's pictures: what is kept in it, on which proof, and where each picture came from.

A picture is kept once it decodes and is as large as the rows say. `pictures.json` beside the folder has each one's
origin, SHA-256 and size; what lies there already is compared with it and never written over.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.images import confined, open_picture
from opengrit.core.messages import first_few
from opengrit.data.fingerprint import sha256_of

MANIFEST = "pictures.json"
IMAGES = "images"
WORK = ".pictures"  # parts, and what was kept since the last call that ended
_JOURNAL = "kept.jsonl"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture that rows name: its name, its size where they say it, and what they ask of it."""

    name: str
    size: Size | None
    asked: tuple[tuple[str, str, str], ...]  # data set, question and answer of each row


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture in the folder. `origin` is an address, a file of the hub or one of the user's; bytes and pixels."""

    origin: str
    sha256: str
    bytes: int
    width: int
    height: int


@dataclass(slots=True)
class PictureFolder:
    """The pictures of one benchmark below `folder`/images. Threads may keep pictures side by side."""

    folder: Path
    kept: dict[str, Kept]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def at(cls, folder: Path) -> PictureFolder:
        """The folder, with what earlier calls kept, finished or not. Raises DataError for a record that cannot be read."""
        return cls(folder, {**_read_manifest(folder / MANIFEST), **_read_journal(folder / WORK / _JOURNAL)})

    @property
    def work(self) -> Path:
        """Where parts lie until they are whole."""
        return self.folder / WORK

    def path_of(self, name: str) -> Path:
        """Where a row's picture lies. Raises DataError for a name that leads out of the folder."""
        return confined(name, self.folder / IMAGES)

    def missing(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Those that are not there; those that are there are verified.

        Raises DataError naming pictures that are not what was fetched, or are no picture of the rows' size.
        """
        absent, wrong = [], []
        for picture in wanted:
            path = self.path_of(picture.name)
            if not path.is_file():
                absent.append(picture)
                continue
            problem = self._problem_of_present(picture, path)
            if problem is not None:
                wrong.append(problem)
        if wrong:
            raise DataError(
                f"existing pictures must be those of the rows, {len(wrong)} in {self.folder / IMAGES} are not: "
                f"{first_few(wrong, between='; ')}; move them away to fetch them again"
            )
        return absent

    def _problem_of_present(self, picture: Wanted, path: Path) -> str | None:
        record = self.kept.get(picture.name)
        if record is not None:
            changed = sha256_of(path) != record.sha256
            return f"{picture.name} has changed since it was fetched" if changed else None
        found = _examined(path, picture)
        if isinstance(found, str):
            return found
        self.kept[picture.name] = _record(path, found, "put here by hand")
        return None

    def keep(self, content: Path, picture: Wanted, origin: str) -> str | None:
        """Move a file of `work` to where the picture belongs; None, or why it is not kept (the file is then left where it is)."""
        found = _examined(content, picture)
        if isinstance(found, str):
            return found
        target, record = self.path_of(picture.name), _record(content, found, origin)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            # Written before the picture is there: a call that is killed in between has a line too many, never one too few.
            with (self.work / _JOURNAL).open("a", encoding="utf-8") as journal:
                # The line end goes first: it also ends a line that a killed call did not finish.
                journal.write("\n" + json.dumps({"name": picture.name, **asdict(record)}))
            os.replace(content, target)
            self.kept[picture.name] = record
        return None

    def finish(self, wanted: Iterable[Wanted]) -> None:
        """Write the manifest, in the order of the rows; the same pictures give the same file however they came."""
        names = [picture.name for picture in wanted]
        order = [*(name for name in names if name in self.kept), *sorted(self.kept.keys() - set(names))]
        there = [name for name in order if self.path_of(name).is_file()]
        text = json.dumps({"pictures": {name: asdict(self.kept[name]) for name in there}}, indent=1)
        part = self.folder / f"{MANIFEST}.part"
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, self.folder / MANIFEST)
        (self.work / _JOURNAL).unlink(missing_ok=True)


def _examined(path: Path, picture: Wanted) -> Size | str:
    """The size of the picture in a file, decoded whole; why it is not the one that the rows name otherwise."""
    try:
        size = Size(*open_picture(path).size)
    except ImageError as error:
        return f"{picture.name}: {str(error).replace(str(path), 'what came')}"
    if picture.size is not None and size != picture.size:
        return (
            f"{picture.name}: the rows say {picture.size.width} x {picture.size.height} pixels, "
            f"it has {size.width} x {size.height}"
        )
    return size


def wanted_by(files: Iterable[Path]) -> list[Wanted]:
    """The pictures that the rows of files in GRIT's form name, each once, in their order.

    Raises DataError where two rows say different sizes of one picture.
    """
    sizes: dict[str, Size | None] = {}
    asked: dict[str, list[tuple[str, str, str]]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            row = json.loads(line)
            name, size = str(row["image"]), _size_of(row)
            if sizes.setdefault(name, size) != size:
                raise DataError(
                    f"rows must agree on a picture's size, those of {name} in {file} do not; use the published file"
                )
            asked.setdefault(name, []).append(
                (str(row.get("dataset", file.stem)), str(row["question"]), str(row["answer"]))
            )
    return [Wanted(name, size, tuple(asked[name])) for name, size in sizes.items()]


def _size_of(row: Mapping[str, Any]) -> Size | None:
    return Size(int(row["width"]), int(row["height"])) if "width" in row and "height" in row else None


def _record(path: Path, size: Size, origin: str) -> Kept:
    return Kept(origin, str(sha256_of(path)), path.stat().st_size, size.width, size.height)


def _read_manifest(path: Path) -> dict[str, Kept]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["pictures"]
        return {str(name): Kept(**record) for name, record in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} records where pictures came from, and cannot be read ({error}); move it away, and the next call "
            "verifies the pictures again"
        ) from error


def _read_journal(path: Path) -> dict[str, Kept]:
    """What a call that did not end kept; a line that it did not finish is left out."""
    kept: dict[str, Kept] = {}
    if not path.is_file():
        return kept
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
            name = str(record.pop("name"))
            kept[name] = Kept(**record)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return kept
