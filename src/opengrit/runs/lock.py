"""A lock on a run's folder for as long as one training writes into it: a second one is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from opengrit.core.errors import RunError

LOCK = ".lock"


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold a run's folder, which is made where it is missing, and removed again where nothing was put into it.

    The lock is the kernel's and goes with the process that holds it, however that ends; a `.lock` that a killed process
    left behind locks nothing. Where the file system has no locks (some network mounts), or Windows, nothing is held.
    Raises RunError where another process holds the folder, or where it cannot be written.
    """
    path = Path(folder)
    made = _make(path)
    try:
        stream = _locked(path)
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows keeps a file that is open
                (path / LOCK).unlink(missing_ok=True)  # before the lock goes: a waiting process looks again
            stream.close()
    finally:
        for empty in made:
            if any(empty.iterdir()):
                break
            empty.rmdir()


def _make(path: Path) -> list[Path]:
    """The folders that had to be made, the innermost first."""
    made: list[Path] = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        made.append(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"a run's folder must be writable, {path} is not ({error.strerror}); choose another --out"
        ) from error
    return made


def _locked(folder: Path) -> BinaryIO:
    path = folder / LOCK
    refusal = (
        f"one training at a time writes a run, another process is training in {folder}; "
        "wait for it to end, or choose another --out"
    )
    while True:
        try:
            stream = path.open("a+b", buffering=0)
        except OSError as error:
            raise RunError(
                f"a run's folder must be writable, {folder} is not ({error.strerror}); choose another --out"
            ) from error
        try:
            if lock(stream, refusal=refusal) and not _is_still(stream, path):
                stream.close()  # its last holder removed it while we opened it
                continue
        except BaseException:
            stream.close()
            raise
        return stream


def lock(stream: BinaryIO, *, refusal: str) -> bool:
    """Whether the file is locked by us now; False where there are no locks. Advisory, and released with the file.

    Raises RunError, saying `refusal`, where another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks of this kind
        return False
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(refusal) from error
    except OSError:  # a file system without locks (some network mounts)
        return False
    return True


def _is_still(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
