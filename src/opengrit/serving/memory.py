"""Gives memory back to the system: what a large picture took is not kept for the next one."""

from __future__ import annotations

import ctypes
import os

# Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_OWN_MAPPING_BYTES = 4 * 2**20  # pictures and their tensors; what a small question needs is less
_KEPT_BYTES = 64 * 2**20
_ARENAS = 4


def give_memory_back() -> None:
    """Let glibc return large blocks when they are freed; call it before threads start. Elsewhere it changes nothing.

    By itself glibc raises the size from which a block is returned to the largest one it has seen freed, up to 32 MiB, and
    a server that saw a few large pictures would keep gigabytes. Settings of the environment (MALLOC_...) have priority.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for name, number, value in (
        ("MALLOC_MMAP_THRESHOLD_", _MMAP_THRESHOLD, _OWN_MAPPING_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD, _KEPT_BYTES),
        ("MALLOC_ARENA_MAX", _ARENA_MAX, _ARENAS),
    ):
        if name not in os.environ:
            mallopt(number, value)
