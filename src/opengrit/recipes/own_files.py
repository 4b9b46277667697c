"""The files of your own that a recipe names, wherever in it: read, and not executed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import OwnFile, Reference, find


def own_files(recipe: BaseModel) -> tuple[OwnFile, ...]:
    """Each file once, in the order of the recipe. Raises RecipeError where one is missing, or two have one name."""
    found: dict[str, OwnFile] = {}
    for reference in references(recipe):
        file = find(reference)
        other = found.setdefault(file.kept_name, file)
        if other.path != file.path:
            raise RecipeError(
                f"a run keeps your own files by name, {other.path} and {file.path} have the same name; rename one"
            )
    return tuple(found.values())


def references(value: Any) -> Iterator[Reference]:
    """Every reference to your own code in a recipe, a section or a value."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from references(getattr(value, name))
    elif isinstance(value, dict):
        yield from references([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
