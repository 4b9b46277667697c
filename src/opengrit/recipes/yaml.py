"""Recipes of any kind from YAML files: unknown keys and impossible values are errors with their line and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import FOLDER
from opengrit.data.tables.files import HUB, names_files
from opengrit.judges.settings import judge_section
from opengrit.recipes.register import nearest_name, packaged_path
from opengrit.recipes.remedies import KeyPath, grouped, problem_of

_Kind = TypeVar("_Kind", bound=BaseModel)

# What only one kind of recipe has, and the command that takes it. A table has sft and train too: it is known first.
_COMMANDS = {"ways": "table", "models": "table", "sft": "sft", "train": "train"}
_BRANCHES = (
    "[named]",
    "[weights]",
    "[list]",
    "[weight]",
    "[settings]",
    "[own]",
)  # tags of a union's alternatives in pydantic's paths, no keys of ours


def key_path(loc: Iterable[int | str]) -> KeyPath:
    """The keys of a place that pydantic names, without the tags of a union's alternatives."""
    return tuple(str(part) for part in loc if part not in _BRANCHES)


def named(value: Any) -> Any:
    """A bare model name becomes a section with that name; for pydantic's BeforeValidator."""
    return {"name": value} if isinstance(value, str) else value


def data_source(value: Any) -> Any:
    """A bare string names a packaged set, a hub data set ("hub:owner/name:split"), or files where its ending or a pattern's
    signs say so; for a BeforeValidator.
    """
    if not isinstance(value, str):
        return value
    if value.startswith(HUB):
        return {"hub": value.removeprefix(HUB)}
    return {"file": value} if names_files(value) else {"name": value}


def read_recipe(
    kind: type[_Kind], path: str | Path, overrides: Sequence[str] = (), *, called: str = "this recipe"
) -> _Kind:
    """The recipe of a kind in a YAML file or of a packaged name, changed by overrides such as "train.max_steps=3"
    (the value is YAML too).

    Raises:
        RecipeError: the file is not readable YAML, an override is not key=value, or the result is not a possible
            recipe; every wrong key and value is listed, with its line and, for a misspelt key, the one meant.
    """
    path = Path(path)
    try:
        text = (packaged_path(path) or path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = nearest_name(str(path)) if isinstance(error, FileNotFoundError) else ""
        raise RecipeError(
            f"a recipe is a readable YAML file or the name of a packaged recipe, {path} is not ({error}); "
            + (remedy or "check the path, or choose one from opengrit recipe list")
        ) from error
    return parse(kind, text, overrides, place=str(path), called=called, folder=path.parent)


def parse(
    kind: type[_Kind],
    text: str,
    overrides: Sequence[str] = (),
    *,
    place: str = "recipe",
    called: str = "this recipe",
    folder: str | Path = "",
) -> _Kind:
    """The recipe of a kind in a YAML text. Raises RecipeError as `read_recipe` does.

    Messages call the text `place`, and say of a wrong key that it is not a key of `called`. Files of your own that it
    names lie in `folder`, or below it.
    """
    try:
        lines = _key_lines(yaml.compose(text, Loader=yaml.SafeLoader), place)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where, problem = _fault(error, text)
        raise RecipeError(
            f"{place}:{where}: a recipe is YAML, this is not ({problem}); fix that line"
        ) from error
    if not isinstance(values, dict):
        first = " and ".join(f"{name}:" for name in list(kind.model_fields)[:2])
        raise RecipeError(f"a recipe is a mapping of sections, {place} is not; start with {first}")
    command = _meant_for(kind, values)
    if command is not None:
        raise RecipeError(f"{place}: this is a recipe of opengrit {command}; run opengrit {command} {place}")
    set_here = {_override(values, override) for override in overrides}
    try:
        return kind.model_validate(values, context={FOLDER: str(folder)})
    except ValidationError as error:
        raise RecipeError(_message(kind, values, error, called, place, lines, set_here)) from error


def _meant_for(kind: type[BaseModel], values: dict[str, Any]) -> str | None:
    """The command that a recipe of another kind is for; None where it is of this kind, or could be."""
    if "data" not in kind.model_fields:
        return None  # a section in a file of its own
    if "models" in kind.model_fields and "model" in values and "models" not in values:
        return "sft" if "sft" in values and "train" not in values else "train"
    foreign = [
        command for key, command in _COMMANDS.items() if key in values and key not in kind.model_fields
    ]
    own = any(key in values and key in kind.model_fields for key in _COMMANDS)
    return foreign[0] if foreign and (foreign[0] == "table" or not own) else None


def _key_lines(node: yaml.Node | None, place: str) -> dict[KeyPath, int]:
    """The line of every key, by its path. Raises RecipeError for a key that occurs twice, which YAML would accept."""
    found: dict[KeyPath, int] = {}

    def walk(node: yaml.Node | None, path: KeyPath) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*path, str(index)))
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in found:
                raise RecipeError(
                    f"a key occurs once in a recipe, {'.'.join(here)} is on line {found[here]} and on line {line} of "
                    f"{place}; keep one"
                )
            found[here] = line
            walk(value, here)

    walk(node, ())
    return found


def _override(values: dict[str, Any], override: str) -> KeyPath:
    """Sets one value in place and returns its key's path."""
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise RecipeError(f"--set takes key=value, got {override!r}; write --set train.seed=3, for example")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {key} takes a YAML value, got {text!r} ({_fault(error, text)[1]}); quote it"
        ) from error
    place: Any = values
    for depth, part in enumerate(path[:-1]):
        place = _step_into(place, part, path[: depth + 1], override)
    if isinstance(place, list):
        place[_index(place, path[-1], override)] = value
    else:
        place[path[-1]] = value
    return path


def _step_into(place: Any, part: str, path: KeyPath, override: str) -> Any:
    key: Any = _index(place, part, override) if isinstance(place, list) else part
    inner = place[key] if isinstance(place, list) else place.get(key)
    if isinstance(inner, str) and path == ("model",):
        inner = named(inner)
    elif isinstance(inner, str) and path == ("judge",):
        inner = judge_section(inner)
    elif isinstance(inner, str) and path[0] == "data":
        inner = data_source(inner)
    elif inner is None:
        inner = {}
    if not isinstance(inner, dict | list):
        raise RecipeError(
            f"--set {override}: {'.'.join(path)} is {inner!r} and has no keys of its own; set it whole"
        )
    place[key] = inner
    return inner


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isascii() or not part.isdigit() or int(part) >= len(items):
        raise RecipeError(
            f"--set {override}: a list of {len(items)} is indexed from 0, got {part!r}; set the list whole"
        )
    return int(part)


def _message(
    kind: type[BaseModel],
    values: dict[str, Any],
    error: ValidationError,
    called: str,
    place: str,
    lines: dict[KeyPath, int],
    set_here: set[KeyPath],
) -> str:
    problems = []
    for item in error.errors(include_url=False):
        path = key_path(item["loc"])
        problems.append(problem_of(kind, values, path, item, called))
    found = [f"{_where(path, place, lines, set_here)}: {text}" for path, text in grouped(problems)]
    if len(found) == 1:
        return found[0]
    head = "every key and value of a recipe must be valid, these are not:"
    return "\n".join([head, *(f"  {line}" for line in found)])


def _where(path: KeyPath, place: str, lines: dict[KeyPath, int], set_here: set[KeyPath]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in set_here:
            return f"--set {'.'.join(path[:length])}"
        if path[:length] in lines:
            return f"{place}:{lines[path[:length]]}"
    return place


def _fault(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line on which a text stops being YAML, and why."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return error.problem_mark.line + 1, str(error.problem)
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, f"{error.reason}: #x{error.character:04x}"
    return 1, " ".join(str(error).split())
