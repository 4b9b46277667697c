"""Packaged recipes: found by name, one's own file first, listed with what they need, copied and never over a file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import RecipeError
from opengrit.experiments.recipe import load_table_recipe
from opengrit.recipes.register import FOLDER, packaged_recipe, packaged_recipes
from opengrit.recipes.sft_recipe import load_sft_recipe
from opengrit.recipes.training_recipe import load_recipe

ROOT = Path(__file__).parents[2]
LOADS = {
    "opengrit train": load_recipe,
    "opengrit sft": load_sft_recipe,
    "opengrit table": load_table_recipe,
}
OURS = [recipe for recipe in packaged_recipes() if recipe.command in LOADS]


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("recipe", OURS, ids=lambda recipe: recipe.name)
def test_every_packaged_recipe_loads_by_its_name_with_the_command_it_says(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder of ours is
    assert LOADS[recipe.command](recipe.name).resolved_yaml()


def test_all_files_but_accelerates_are_of_our_commands():
    assert len(OURS) == len(list(FOLDER.glob("*.yaml")))
    assert {r.command for r in packaged_recipes()} == {*LOADS, "accelerate launch"}
    assert all(recipe.purpose for recipe in packaged_recipes())


def test_the_package_data_holds_every_recipe():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = FOLDER.parents[1]
    patterns = project["tool"]["setuptools"]["package-data"]["opengrit"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert {recipe.path for recipe in packaged_recipes()} <= shipped


def test_a_file_of_the_name_goes_before_the_packaged_recipe_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a run of that name, perhaps
    assert load_recipe("demo").train.max_steps == 40
    (tmp_path / "sft-demo").write_text("model: mine\ndata: {train: [a]}\n", encoding="utf-8")
    assert load_sft_recipe("sft-demo").model.name == "mine"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("dmo", "did you mean demo?"),
        ("grit20-qwen2.5-vl-3b-24gb", "did you mean grit20-qwen2.5-vl-3b-24gb-lora?"),
        ("recipes/demo.yaml", "write demo, a packaged recipe"),
        ("demo.yaml", "write demo, a packaged recipe"),
        ("mine.yaml", "check the path, or choose one from opengrit recipe list"),
    ],
)
def test_a_recipe_that_is_not_there_is_sent_to_the_one_meant(written, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(written)
    assert str(caught.value).endswith(f"; {said}")


def test_a_mistake_in_a_packaged_recipe_is_placed_by_its_name():
    with pytest.raises(
        RecipeError, match="demo: this is a recipe of opengrit train; run opengrit train demo"
    ):
        load_sft_recipe("demo")


def test_the_list_names_each_with_what_it_needs():
    listed = run("recipe", "list")
    for recipe in packaged_recipes():
        line = next(line for line in listed.splitlines() if line.split()[:1] == [recipe.name])
        assert recipe.hardware in line
        for needed in (recipe.memory, recipe.disk, recipe.time):
            assert needed.partition(" (")[0] in line
    lora = packaged_recipe("grit20-qwen2.5-vl-3b-24gb-lora")
    assert (lora.num_devices, lora.device_gb, lora.memory) == (1, 24, "21 GB (estimated)")
    assert max(map(len, listed.splitlines())) <= 100


def test_a_copy_is_the_recipe_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run("recipe", "show", "demo")
    assert run("recipe", "copy", "demo").strip() == "written: demo.yaml"
    assert (
        (tmp_path / "demo.yaml").read_text(encoding="utf-8")
        == shown
        == packaged_recipe("demo").path.read_text("utf-8")
    )
    assert load_recipe("demo.yaml") == load_recipe("demo")
    assert "demo.yaml exists; name another file with --out" in run("recipe", "copy", "demo", code=2)
    assert "folder that exists, none is none" in run("recipe", "copy", "demo", "--out", "none/a.yaml", code=2)
    run("recipe", "copy", "accelerate/zero2")
    assert "zero_stage: 2" in (tmp_path / "zero2.yaml").read_text(encoding="utf-8")
    assert "did you mean demo?" in run("recipe", "show", "demmo", code=2)
