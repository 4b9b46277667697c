"""The page of recipe keys is what the fields say."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from opengrit.experiments.recipe import TableRecipe
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.training_recipe import Recipe

SCRIPT = Path(__file__).parents[2] / "scripts" / "recipe_keys.py"
spec = importlib.util.spec_from_file_location("recipe_keys", SCRIPT)
assert spec is not None
assert spec.loader is not None
recipe_keys = importlib.util.module_from_spec(spec)
sys.modules["recipe_keys"] = recipe_keys
spec.loader.exec_module(recipe_keys)


def test_the_page_is_the_one_that_the_script_writes() -> None:
    written = recipe_keys.PAGE.read_text(encoding="utf-8")
    assert written == recipe_keys.page(), "docs/recipe-keys.md is old; run scripts/recipe_keys.py"


def sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections that a field's type names, at any depth (`tuple[Source, ...] | None`)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def keys_of(kinds: Mapping[str, type[BaseModel]]) -> list[frozenset[str]]:
    """The keys of all sections of these recipes, each with every path that it may be shown under.

    A section that several recipes share, or that extends another one, is shown once.
    """
    places: dict[type[BaseModel], set[str]] = {}
    pending = [(kind, f"{heading}: ") for heading, kind in kinds.items()]
    for section, path in pending:
        if path in places.setdefault(section, set()):
            continue
        places[section].add(path)
        for name, field in section.model_fields.items():
            pending += [(inner, f"{path}{name}.") for inner in sections_in(field.annotation)]
    return [
        frozenset(f"{path}{name}" for base in section.__mro__ for path in places.get(base, ()))
        for section in places
        for name in section.model_fields
    ]


def missing(page: str, keys: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    rows = {
        f"{heading}: " + re.sub(r"\[\]|\.NAME", "", key)
        for heading, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        for key in re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    }
    return [key for key in keys if not key & rows]


KEYS = keys_of(
    {"Training": Recipe, "Supervised fine-tuning": SftRecipe, "Table": TableRecipe, "Evaluation": EvalRecipe}
)


def test_every_key_of_every_section_is_on_the_page() -> None:
    assert len(KEYS) > 150
    assert missing(recipe_keys.page(), KEYS) == []


def test_a_key_that_the_page_leaves_out_is_missed() -> None:
    lines = recipe_keys.page().splitlines(keepends=True)
    rows = [place for place, line in enumerate(lines) if line.startswith("| `")]
    unnoticed = [lines[row] for row in rows if not missing("".join(lines[:row] + lines[row + 1 :]), KEYS)]
    assert unnoticed == []


def test_a_line_says_meaning_value_unit_default_and_source() -> None:
    lines = recipe_keys.page().splitlines()
    assert (
        "| `train.max_steps` | optimizer steps | whole number >= 1 | steps | `200` | GRIT section 4.2 |"
        in lines
    )
    assert any(line.startswith("| `model.name` |") and "| - |" in line for line in lines)
