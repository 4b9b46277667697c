"""The pictures of a folder: their names in a person's order, and their files' content, nothing outside the folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from opengrit.core.errors import DataError, ImageError
from opengrit.core.images import confined

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def picture_names(folder: Path) -> tuple[str, ...]:
    """The picture files in a folder and the folders in it, relative to it, numbers in the order of their values.

    Hidden files and folders, and links that lead out, are left out. Raises DataError where the folder holds no picture.
    """
    if not folder.is_dir():
        raise DataError(f"pictures are in a folder that exists, got {folder}; check the path")
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            relative = (Path(place) / name).relative_to(folder).as_posix()
            if _is_inside(relative, folder):
                found.append(relative)
    if not found:
        raise DataError(
            f"a folder of pictures holds files named {', '.join(SUFFIXES)}, {folder} holds none; name another"
        )
    return tuple(sorted(found, key=_natural))


def content_of(name: str, folder: Path, *, max_bytes: int) -> bytes:
    """The content of a picture's file. Raises ImageError where it cannot be read or is larger than that."""
    try:
        path = confined(name, folder)
        size = path.stat().st_size
        if size > max_bytes:
            raise ImageError(
                f"a picture's file has at most {max_bytes} bytes here, {name} has {size}; save it smaller"
            )
        return path.read_bytes()
    except DataError as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        raise ImageError(
            f"a picture must be readable, {name} is not ({error.strerror}); check the file"
        ) from error


def _is_inside(name: str, folder: Path) -> bool:
    try:
        return confined(name, folder).is_file()
    except DataError:
        return False


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts "2.png" before "10.png"."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts] + [(1, 0, name)]
