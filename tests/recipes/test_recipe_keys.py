"""The page of recipe keys is what the fields say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("kind", [Recipe, SftRecipe, EvalRecipe, TableRecipe])
def test_every_key_is_in_its_section_s_table_or_in_that_of_the_section_it_shares(
    kind: type[BaseModel],
) -> None:
    keys = {
        line.split("`")[1].rsplit(".", 1)[-1].removesuffix("[]")
        for line in recipe_keys.page().splitlines()
        if line.startswith("| `")
    }
    pending, seen = [kind], set()
    while pending:
        section = pending.pop()
        if section in seen:
            continue
        seen.add(section)
        assert set(section.model_fields) <= keys
        pending += filter(
            None, (recipe_keys.section_in(field.annotation) for field in section.model_fields.values())
        )
    assert len(seen) > 4


def test_a_line_says_meaning_value_unit_default_and_source() -> None:
    lines = recipe_keys.page().splitlines()
    assert (
        "| `train.max_steps` | optimizer steps | whole number >= 1 | steps | `200` | GRIT section 4.2 |"
        in lines
    )
    assert any(line.startswith("| `model.name` |") and "| - |" in line for line in lines)
