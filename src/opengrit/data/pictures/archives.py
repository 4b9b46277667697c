"""Pictures out of a folder, a zip or a tar, by the names that rows have; nothing is written by a member's own name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from opengrit.core.errors import DataError, first_line
from opengrit.core.images import DEFAULT_LIMITS
from opengrit.data.pictures.addresses import paths_of
from opengrit.data.pictures.kept import Wanted

# What an archive may hold unpacked: pictures hardly shrink, so more than this is made to fill a disk or a memory.
_MOST_TIMES_LARGER = 20
_ALWAYS_ALLOWED_BYTES = 256 * 2**20
_PACKED: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, packed or not."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def pictures_in(source: Path, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, bytes, str]]:
    """The wanted pictures of a folder or an archive: each with its bytes and where they were; a name may come more than once.

    A member is a row's picture by the row's whole name, by a host's path for it, or by its file name alone.
    Raises DataError for an archive that is damaged, or unpacks to far more than it should.
    """
    names = _Names(wanted)
    if source.is_dir():
        yield from _in_folder(source, names)
        return
    try:
        if zipfile.is_zipfile(source):
            yield from _in_zip(source, names)
        else:
            yield from _in_tar(source, names)
    except _DAMAGE as error:
        raise DataError(
            f"an archive of pictures must be complete, {source} is not ({first_line(error)}); fetch it again"
        ) from error


def members(files: Sequence[Path], wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, bytes, str]]:
    """The wanted pictures of several archives, one after the other."""
    for file in files:
        yield from pictures_in(file, wanted)


class _Names:
    """Which wanted picture a path stands for."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._by_path = {path: picture for picture in wanted for path in paths_of(picture.name)}
        self._by_file: dict[str, list[Wanted]] = defaultdict(list)
        for picture in wanted:
            self._by_file[picture.name.rpartition("/")[2]].append(picture)

    def of(self, path: str) -> Wanted | None:
        parts = path.replace("\\", "/").split("/")
        for start in range(len(parts)):
            if (found := self._by_path.get("/".join(parts[start:]))) is not None:
                return found
        alone = self._by_file.get(parts[-1], [])
        return alone[0] if len(alone) == 1 else None


def _in_folder(source: Path, names: _Names) -> Iterator[tuple[Wanted, bytes, str]]:
    for root, _, files in os.walk(source):
        for file in sorted(files):
            path = Path(root) / file
            inside = path.relative_to(source).as_posix()
            picture = names.of(inside)
            if picture is not None and path.is_file():
                with path.open("rb") as stream:
                    yield picture, _bounded(stream, str(path)), f"{source.name}/{inside}"


def _in_zip(source: Path, names: _Names) -> Iterator[tuple[Wanted, bytes, str]]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            picture = None if member.is_dir() else names.of(member.filename)
            if picture is not None:
                with archive.open(member) as stream:
                    yield picture, _bounded(stream, member.filename), f"{source.name} ({member.filename})"


def _in_tar(source: Path, names: _Names) -> Iterator[tuple[Wanted, bytes, str]]:
    most = source.stat().st_size * _MOST_TIMES_LARGER + _ALWAYS_ALLOWED_BYTES
    with _unpacked(source) as unpacked, tarfile.open(fileobj=_Bounded(unpacked, most), mode="r|") as archive:
        for member in archive:
            picture = names.of(member.name) if member.isreg() else None
            stream = archive.extractfile(member) if picture is not None else None
            if picture is not None and stream is not None:
                yield picture, _bounded(stream, member.name), f"{source.name} ({member.name})"


def _unpacked(source: Path) -> IO[bytes]:
    with source.open("rb") as stream:
        head = stream.read(8)
    opener = next((opener for magic, opener in _PACKED if head.startswith(magic)), open)
    return cast("IO[bytes]", opener(source, "rb"))


def _bounded(stream: IO[bytes], name: str) -> bytes:
    """A member's bytes. Raises ValueError where they are more than a picture's file may have."""
    content = stream.read(DEFAULT_LIMITS.max_bytes + 1)
    if len(content) > DEFAULT_LIMITS.max_bytes:
        raise ValueError(f"{name} has more than {DEFAULT_LIMITS.max_bytes} bytes")
    return content


class _Bounded(io.RawIOBase):
    """A stream that raises ValueError beyond so many bytes: what a packed tar unpacks to is not known beforehand."""

    def __init__(self, inner: IO[bytes], most: int) -> None:
        self._inner, self._left = inner, most

    def read(self, size: int = -1) -> bytes:
        content = self._inner.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to far more than pictures would")
        return content
