"""Names of a package that are imported when they are first asked for, so that a door stays light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from opengrit.core.collector import paused_collector


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` (PEP 562) for the package: `modules` says in which module each name is defined."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with paused_collector():  # torch and transformers make half a million objects that stay
            return getattr(importlib.import_module(modules[name]), name)

    return find
