"""Recipes that an earlier version of the package resolved: they lack the keys that came since."""

from __future__ import annotations

from collections.abc import Callable

import yaml
from pydantic import ValidationError

from opengrit.core.errors import RecipeError


def kept_or_now(kept: str, now: str, *, resolve: Callable[[str], str]) -> str:
    """The resolved recipe `kept` in a folder where it says what that of `now` says, but for keys that came since; else `now`.

    `resolve` reads a recipe and writes it with every default of this version.
    """
    try:
        return kept if resolve(kept) == now else now
    except (
        RecipeError,
        ValidationError,
        yaml.YAMLError,
        LookupError,
        TypeError,
    ):  # none that can be read now
        return now
