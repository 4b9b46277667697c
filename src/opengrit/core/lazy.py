"""What is imported when it is first used, so that a door stays light: names of a package, and functions that libraries import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from opengrit.core.collector import paused_collector


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` (PEP 562) for the package: `modules` says in which module each name is defined."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # torch and transformers make half a million objects that stay; transformers imports scipy's optimizers for the
        # losses of object detectors.
        with paused_collector(), imported_late("scipy.optimize", "linear_sum_assignment"):
            return getattr(importlib.import_module(modules[name]), name)

    return find


@contextmanager
def imported_late(module: str, function: str) -> Iterator[None]:
    """In the block, whoever imports the function from the module gets one that imports the module when it is called.

    Another name asked of the module imports it at once, and a module that is imported already stays.
    """
    if module in sys.modules:
        yield
        return
    stand_in = _StandIn(module)

    def late(*arguments: Any, **named: Any) -> Any:
        return getattr(stand_in.imported(), function)(*arguments, **named)

    setattr(stand_in, function, late)
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        stand_in.leave()


class _StandIn(ModuleType):
    """Stands in a module's place until something is asked of it that it does not have."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for a spec and a path
            raise AttributeError(name)
        return getattr(self.imported(), name)

    def imported(self) -> ModuleType:
        self.leave()
        return importlib.import_module(self.__name__)

    def leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
