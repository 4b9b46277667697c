"""A lock on a run's folder for as long as one training writes into it: a second one is refused."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, has_fcntl, lock_descriptor

from opengrit.core.errors import RunError

LOCK = ".lock"
# What a file system without locks (some network mounts) says.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold a run's folder, which is made where it is missing, and removed again where nothing was put into it.

    The lock is the kernel's and goes with the process that holds it, however that ends; a `.lock` that a killed process
    left behind locks nothing. Where the file system has no locks (some network mounts) nothing is held.
    Raises RunError where another process holds the folder, or where it cannot be written.
    """
    path = Path(folder)
    missing = [one for one in (path, *path.parents) if not one.exists()]
    lock_file = FileLock(path / LOCK, blocking=False, fallback_to_soft=False)
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock_file.acquire()
        except Timeout as error:
            raise RunError(
                f"only one training at a time writes a run, another process is training in {folder}; wait until it "
                "ends, or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise RunError(
                    f"a run's folder must be writable, {folder} is not ({error.strerror}); choose another --out"
                ) from error
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows keeps a file that is open
                (path / LOCK).unlink(missing_ok=True)  # before the lock goes: whoever opened it looks again
            lock_file.release()
    finally:
        for made in missing:  # the innermost first
            with suppress(OSError):  # not empty
                made.rmdir()


def lock(descriptor: int, *, refusal: str) -> None:
    """Lock an open file until it is closed, where the file system has locks.

    Raises RunError, saying `refusal`, where another process has locked it.
    """
    if not has_fcntl:  # the locks of Windows keep readers out as well
        return
    try:
        locked = lock_descriptor(descriptor, blocking=False)
    except OSError:  # a file system without locks (some network mounts)
        return
    if not locked:
        raise RunError(refusal)
