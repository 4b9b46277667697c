"""Recipes of any kind from YAML files: unknown keys and impossible values are errors with their line and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from opengrit.config import _is_branch, _key_lines, _one_line, _override, _where, _wrong_value
from opengrit.errors import RecipeError

_Kind = TypeVar("_Kind", bound=BaseModel)
_Path = tuple[str, ...]


def read_recipe(kind: type[_Kind], path: str | Path, overrides: Sequence[str] = ()) -> _Kind:
    """The recipe of a kind in a YAML file, changed by overrides such as "train.max_steps=3" (the value is YAML too).

    Raises:
        RecipeError: the file is not readable YAML, an override is not key=value, or the result is not a possible
            recipe; every wrong key and value is listed, with its line and, for a misspelt key, the one meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"a recipe is a readable YAML file, {path} is not ({error}); check the path"
        ) from error
    return parse(kind, text, overrides, place=str(path))


def parse(kind: type[_Kind], text: str, overrides: Sequence[str] = (), *, place: str = "recipe") -> _Kind:
    """The recipe of a kind in a YAML text; `place` is what messages call it. Raises RecipeError as `read_recipe` does."""
    try:
        lines = _key_lines(yaml.compose(text, Loader=yaml.SafeLoader), place)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"a recipe is YAML, {place} is not ({_one_line(error)}); mend that line") from error
    if not isinstance(values, dict):
        first = " and ".join(f"{name}:" for name in list(kind.model_fields)[:2])
        raise RecipeError(f"a recipe is a mapping of sections, {place} is not; start with {first}")
    set_here = {_override(values, override) for override in overrides}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_message(kind, error, place, lines, set_here)) from error


def _message(
    kind: type[BaseModel], error: ValidationError, place: str, lines: dict[_Path, int], set_here: set[_Path]
) -> str:
    found = []
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"] if not _is_branch(part))
        text = (
            _unknown_key(kind, path) if item["type"] == "extra_forbidden" else _wrong_value(path, dict(item))
        )
        found.append(f"{_where(path, place, lines, set_here)}: {text}")
    found = list(dict.fromkeys(found))
    if len(found) == 1:
        return found[0]
    head = "every key of a recipe is known and every value possible, these are not:"
    return "\n".join([head, *(f"  {line}" for line in found)])


def _unknown_key(kind: type[BaseModel], path: _Path) -> str:
    known = list(_keys(kind))
    section = tuple(part for part in path[:-1] if not part.isdigit())
    siblings = [keys[-1] for keys in known if keys[:-1] == section]
    near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.6)
    elsewhere = [".".join(keys) for keys in known if keys[-1] == path[-1]]
    if near:
        remedy = f"did you mean {near[0]}?"
    elif elsewhere:
        remedy = f"did you mean {' or '.join(elsewhere)}?"
    else:
        remedy = f"known here: {', '.join(siblings)}"
    return f"{'.'.join(path)} is not a key of this recipe; {remedy}"


def _keys(kind: type[BaseModel], path: _Path = ()) -> Iterator[_Path]:
    """Every key a recipe of that kind can have, by its path; a list's items have the list's."""
    for name, field in kind.model_fields.items():
        yield (*path, name)
        for section in _sections(field.annotation):
            yield from _keys(section, (*path, name))


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections a field's type holds, inside lists, alternatives and annotations too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _sections(inner)
