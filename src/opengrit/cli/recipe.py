"""`opengrit recipe`: the recipes that come with the package, listed, shown and copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Name = Annotated[str, typer.Argument(help="Packaged recipe; `opengrit recipe list` names them.")]


def list_recipes() -> None:
    """List the recipes that come with the package: what each is for, its hardware, and the memory, disk and time it takes.

    A name stands where a command takes a recipe: `opengrit train demo`. Where the working folder has a file of that
    very name, the file is taken. Paths in a packaged recipe (data/...) start from the working folder.

    Example:

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
    typer.echo(
        "Memory is a device's; disk holds the model and the checkpoints; time is the training's alone."
    )
    typer.echo("*: measured; the others are estimated, by scripts/recipe_memory.py.")
    typer.echo("opengrit recipe show NAME prints one, opengrit recipe copy NAME makes it yours to edit.")


def _line(name: str, hardware: str = "", memory: str = "", disk: str = "", time: str = "") -> str:
    return f"{name:<34} {hardware:<22}{memory:>7}{disk:>8}{time:>7}".rstrip()


def _short(needed: str) -> str:
    """A figure as the list has it: a star where it was measured."""
    return needed.replace(" (estimated)", "").replace(" (measured)", "*")


def show(name: _Name) -> None:
    """Print a packaged recipe, with its comments: where each value is from.

    Examples:

        opengrit recipe show demo
    """
    from opengrit.recipes.register import packaged_recipe

    typer.echo(packaged_recipe(name).path.read_text(encoding="utf-8"), nl=False)


def copy(
    name: _Name,
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: the recipe's name in the working folder).")
    ] = None,
) -> None:
    """Copy a packaged recipe into a file of your own, to edit. Nothing is overwritten.

    Examples:

        opengrit recipe copy demo --out mine.yaml

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
