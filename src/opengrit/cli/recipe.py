"""`opengrit recipe`: the recipes that come with the package, listed, shown and copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opengrit.cli import options

_Name = Annotated[str, typer.Argument(help="Packaged recipe (opengrit recipe list names them).")]


def list_recipes() -> None:
    """List the packaged recipes: purpose, hardware, memory, disk and time of each.

    A command that takes a recipe takes its name: `opengrit train demo`. If the working folder has a file of exactly that
    name, the file is used. Paths in a packaged recipe (data/...) are relative to the working folder.

    Examples:

        opengrit recipe list
    """
    from opengrit.recipes.register import packaged_recipes

    recipes = packaged_recipes()
    for command in dict.fromkeys(recipe.command for recipe in recipes):
        heads = ("hardware", "memory", "disk", "time") if command == "opengrit train" else ("hardware",)
        typer.echo(_line(command, *heads))
        for recipe in recipes:
            if recipe.command == command:
                typer.echo(_line(f"  {recipe.name}", *(_short(getattr(recipe, head)) for head in heads)))
                typer.echo(f"      {recipe.purpose}")
        typer.echo()
    typer.echo("Memory is per device; disk holds the model and the checkpoints; time is for training alone.")
    typer.echo("*: measured; the others are estimated by scripts/recipe_memory.py.")
    typer.echo(
        "opengrit recipe show NAME prints a recipe; opengrit recipe copy NAME writes a copy for you to edit."
    )


def _line(name: str, hardware: str = "", memory: str = "", disk: str = "", time: str = "") -> str:
    return f"{name:<34} {hardware:<22}{memory:>7}{disk:>8}{time:>7}".rstrip()


def _short(needed: str) -> str:
    """A figure as the list shows it: a star where it was measured."""
    return needed.replace(" (estimated)", "").replace(" (measured)", "*")


def show(name: _Name) -> None:
    """Print a packaged recipe with its comments, which say where each value comes from.

    `opengrit recipe copy` writes a copy for you to edit.

    Examples:

        opengrit recipe show demo
    """
    from opengrit.recipes.register import packaged_recipe

    typer.echo(packaged_recipe(name).path.read_text(encoding="utf-8"), nl=False)


def copy(
    name: _Name,
    out: Annotated[
        Path | None,
        options.output(metavar="FILE", help="New file (default: the recipe's name in the working folder)."),
    ] = None,
) -> None:
    """Copy a packaged recipe to a file of your own, for editing.

    Nothing is overwritten.

    Examples:

        opengrit recipe copy demo --out mine.yaml

        opengrit train mine.yaml --out mine/trained

        opengrit recipe copy accelerate/zero2
    """
    from opengrit.core.errors import RecipeError
    from opengrit.recipes.register import packaged_recipe

    recipe = packaged_recipe(name)
    path = Path(recipe.path.name) if out is None else out
    text = recipe.path.read_text(encoding="utf-8")
    if not path.parent.is_dir():
        raise RecipeError(
            f"a recipe is written into a folder that exists, {path.parent} is none; make it first"
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"nothing is overwritten, {path} exists; name another file with --out") from error
    typer.echo(f"written: {path}")
