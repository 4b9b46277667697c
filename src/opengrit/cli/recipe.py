"""`opengrit recipe`: the recipes that come with the package, listed, shown and copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Name = Annotated[str, typer.Argument(help="Packaged recipe; `opengrit recipe list` names them.")]


def list_recipes() -> None:
    """List the recipes that come with the package: what each is for, on which hardware, and the memory it takes.

    A name stands where a command takes a recipe: `opengrit train demo`. Where the working folder has a file of that
    very name, the file is taken. Paths in a packaged recipe (data/..., photos) start from the working folder.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from opengrit.recipes.register import packaged_recipes

    console = Console()
    recipes = packaged_recipes()
    for command in dict.fromkeys(recipe.command for recipe in recipes):
        table = Table(title=command, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        table.add_column("recipe", overflow="fold", no_wrap=True)
        table.add_column("for")
        table.add_column("hardware")
        table.add_column("memory a device")
        for recipe in recipes:
            if recipe.command == command:
                table.add_row(
                    *(Text(t) for t in (recipe.name, recipe.purpose, recipe.hardware, recipe.memory))
                )
        console.print(table)
        console.print()
    console.print(
        "opengrit recipe show NAME prints one, opengrit recipe copy NAME makes it yours to edit.",
        highlight=False,
    )


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
