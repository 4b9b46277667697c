"""A row's picture: the file in the folder that its name means, or the picture itself, written to a folder of its own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from opengrit.core.errors import DataError
from opengrit.core.images import FORMATS

_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"})
_SAFE = re.compile(r"[\w][\w .()+-]{0,120}")


class Ambiguous(Exception):
    """A name means several files of the folder."""


class PictureFolder:
    """The files below a folder, found by what a table may call them; no file outside is looked at.

    A folder that nobody named (`searched` is False: the one that a table lies in) is not walked through: a picture is
    found there under its own path, or its last part, alone.
    """

    def __init__(self, root: Path, *, searched: bool) -> None:
        self.root = root
        self._searched = searched

    def find(self, name: str) -> str | None:
        """The path below the folder that a name means, None where there is none.

        A name is a relative path, that of another machine, an address, or a file's name, in any case, with or without
        its ending, a number with or without its leading zeros (spreadsheets drop them). Raises Ambiguous.
        """
        plain = re.sub(r"[?#].*$", "", name) if "://" in name else name
        parts = [part for part in PureWindowsPath(plain.strip()).parts if part not in ("\\", "/", ".", "..")]
        parts = [part for part in parts if not part.endswith((":", ":\\"))]
        for start in range(len(parts)):
            path = "/".join(parts[start:])
            if os.path.isfile(self.root / path):
                return path
        return self._searched_for(parts) if parts and self._searched else None

    def _searched_for(self, parts: list[str]) -> str | None:
        folded = [_folded(part) for part in parts]
        for start in range(len(folded)):  # the longest end of the path first
            if found := self._by_path.get("/".join(folded[start:])):
                return _only(found)
        last = folded[-1]
        for index, key in (
            (self._by_name, last),
            (self._by_stem, last),
            (self._by_number, last.lstrip("0") or "0"),
        ):
            if found := index.get(key):
                return _only(found)
        return None

    @cached_property
    def _files(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = os.path.relpath(folder, self.root)
            for name in files:
                if os.path.splitext(name)[1].lower() in _SUFFIXES:
                    found.append(name if inside == "." else f"{Path(inside).as_posix()}/{name}")
        return sorted(found)

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        return self._index(lambda path: path)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._index(lambda path: path.rpartition("/")[2])

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._index(lambda path: os.path.splitext(path.rpartition("/")[2])[0])

    @cached_property
    def _by_number(self) -> dict[str, list[str]]:
        numbers = {key: files for key, files in self._by_stem.items() if key.isdecimal()}
        found: dict[str, list[str]] = defaultdict(list)
        for key, files in numbers.items():
            found[key.lstrip("0") or "0"] += files
        return found

    def _index(self, key: Any) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self._files:
            found[_folded(key(path))].append(path)
        return found


def _folded(name: str) -> str:
    """A name without case, its letters composed: macOS and some archives write an umlaut as two characters."""
    return unicodedata.normalize("NFC", name).casefold()


def _only(files: list[str]) -> str:
    if len(files) == 1:
        return files[0]
    raise Ambiguous(" and ".join(files[:2]))


def content_of_cell(value: Any) -> tuple[bytes, str | None] | None:
    """The picture that a cell holds and its own name, where it holds one: bytes, datasets' {bytes, path}, a data: address."""
    if isinstance(value, bytes | bytearray):
        return bytes(value), None
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes | bytearray):
        path = value.get("path")
        return bytes(value["bytes"]), path if isinstance(path, str) else None
    if isinstance(value, str) and (start := _DATA.match(value)):
        try:
            return base64.b64decode(value[start.end() :], validate=False), None
        except binascii.Error:
            return None
    return None


def written(content: bytes, name: str | None, folder: Path) -> str:
    """The name of a picture's file in the folder: its own where it has a plain one, else its content's hash.

    A picture that is there is not written again. Raises DataError where the content is no picture.
    """
    digest = hashlib.sha256(content).hexdigest()[:16]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            suffix = ".jpg" if image.format in ("JPEG", "MPO") else f".{str(image.format).lower()}"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"a cell's picture must open, this one of {len(content)} bytes does not; save it again"
        ) from error
    own = PureWindowsPath(name).name if name else ""
    plain = (
        own if _SAFE.fullmatch(own) and os.path.splitext(own)[1].lower() in _SUFFIXES else f"{digest}{suffix}"
    )
    for file in (plain, f"{digest}{suffix}"):
        path = folder / file
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{digest}.{os.getpid()}"
            partial.write_bytes(content)
            partial.replace(path)
            return file
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] == digest:
            return file
    raise DataError(f"{folder} has other files of these names; empty it, and import again")
