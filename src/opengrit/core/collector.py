"""Python's collector of cycles, paused where very many objects are made that all stay: records, and libraries' modules."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """No look for cycles inside: it would look through all that is there again and again, and find nothing.

    What was made inside counts as old afterwards: it is looked at in full collections, and not by the next small ones.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():  # nothing is frozen that would thaw here
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def leave_to_the_system() -> None:
    """When the process ends, look for no cycles among what libraries made: the system takes their memory back at once.

    Handlers that were registered before or after this call still run, and files that are closed by name are closed.
    """
    atexit.register(gc.freeze)
