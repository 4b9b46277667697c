"""What keeps a door light: names imported when they are first asked for, packages that libraries do without."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from opengrit.core.collector import paused_collector


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` (PEP 562) for the package: `modules` says in which module each name is defined."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with paused_collector():  # torch and transformers make half a million objects that stay
            return getattr(importlib.import_module(modules[name]), name)

    return find


@contextmanager
def without(package: str) -> Iterator[None]:
    """In the block the package counts as not installed, unless it is imported already.

    For a process of our own alone: a library that is imported in the block does without the package until the process ends.
    """
    modules = cast(dict[str, Any], sys.modules)
    hides = package not in modules
    if hides:
        modules[package] = None
    try:
        yield
    finally:
        if hides:
            del modules[package]
