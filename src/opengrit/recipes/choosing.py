"""Which packaged recipe fits a machine and a model, and that recipe as a file of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrit.core.errors import RecipeError
from opengrit.recipes.register import PackagedRecipe, packaged_recipes
from opengrit.recipes.training_recipe import Recipe, load_recipe

PACKAGED_MODEL = "tiny-"  # what the names of the packaged models begin with
_SPARE = 0.95  # of a device's memory: the rest is the driver's
_MEMORY = re.compile(r"(\d+) GB")
_DEMO = "demo"


@dataclass(frozen=True, slots=True)
class Choice:
    """A packaged recipe, the model to train with it, and what a person should know of the choice ("": nothing)."""

    packaged: PackagedRecipe
    recipe: Recipe
    model: str
    note: str = ""


def choose(*, device_gb: float | None, model: str | None = None) -> Choice:
    """The packaged recipe for one device with so much memory (GB of 10^9 bytes; None: no GPU) and a model.

    Without a model it is the largest recipe that the memory allows, and the demo's tiny model where it allows none. Of a
    model that no packaged recipe names, the recipe of its family is taken.
    """
    known = [
        (one, load_recipe(one.path))
        for one in packaged_recipes()
        if one.command == "opengrit train" and one.memory
    ]
    demo, others = _parted(known)
    fitting = [pair for pair in others if device_gb is not None and _needs(pair[0]) <= _SPARE * device_gb]
    if model is None and not fitting:
        here = (
            "there is no GPU here"
            if device_gb is None
            else f"no packaged recipe fits a GPU of {device_gb:.0f} GB"
        )
        least = min(others, key=lambda pair: _needs(pair[0]))
        return Choice(
            *demo,
            demo[1].model.name,
            f"{here}, so the recipe trains {demo[1].model.name}, which knows emoji stickers only and learns nothing "
            f"about photos; use it to see that everything runs. On a GPU with {_needs(least[0]):.0f} GB or more, add "
            f"--model {least[1].model.name}",
        )
    if model is not None and model.startswith(PACKAGED_MODEL):
        return Choice(
            *demo, model, f"{model} knows emoji stickers only: what it answers about photos means nothing"
        )
    of_model = [pair for pair in others if model in (None, pair[1].model.name)] or _family(others, model)
    possible = [pair for pair in fitting if pair in of_model]
    if possible:
        packaged, recipe = max(possible, key=lambda pair: _needs(pair[0]))
        name = model or recipe.model.name
        note = (
            ""
            if name == recipe.model.name
            else f"the recipe was made for {recipe.model.name}, not for {name}"
        )
        return Choice(packaged, recipe, name, note)
    packaged, recipe = min(of_model, key=lambda pair: _needs(pair[0]))
    here = "there is no GPU here" if device_gb is None else f"this GPU has {device_gb:.0f} GB"
    return Choice(
        packaged,
        recipe,
        model or recipe.model.name,
        f"{here}, and {packaged.name} needs one with {_needs(packaged):.0f} GB free: train on such a machine",
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that is written into a packaged recipe, and what the comment beside it says."""

    value: Any
    comment: str = "opengrit new"


def written_recipe(choice: Choice, *, data: str, values: Mapping[str, Setting]) -> str:
    """The packaged recipe's text with another head, data section and model, and these values ("train.max_steps").

    Its comments stay, but for those of a value that is replaced. `data` is the section's YAML. Raises RecipeError for a key
    that the packaged recipe has not.
    """
    head = (
        f"# Made by `opengrit new` from the packaged recipe {choice.packaged.name}, for your own rows; yours to edit.\n"
        f"# `opengrit recipe show {choice.packaged.name}` has the original, docs/recipe-keys.md every key.\n"
    )
    text = re.sub(r"\A(?:#.*\n|\n)*", "", choice.packaged.path.read_text(encoding="utf-8"))
    due = dict(values)
    if choice.model != choice.recipe.model.name:
        due["model.name" if re.search(r"^model:\s*$", text, re.MULTILINE) else "model"] = Setting(
            choice.model
        )
    text = re.sub(r"^data:\n(?:[ ].*\n|\n)*", lambda _: f"{data}\n", text, flags=re.MULTILINE)
    section = ""
    lines: list[str] = []
    for line in text.splitlines():
        key = re.match(r"(  )?(\w+):", line)
        if key and key[1] is None:
            section = key[2]
        name = key and (f"{section}.{key[2]}" if key[1] else section)
        if key and name in due:
            setting = due.pop(name)
            line = f"{key[0]} {json.dumps(setting.value, ensure_ascii=False)}  # {setting.comment}"
            while lines and re.match(r" +#", lines[-1]):  # of the value that was there
                lines.pop()
        lines.append(line)
    if due:
        raise RecipeError(
            f"a packaged recipe must have every key that is set for your rows, {choice.packaged.name} has no "
            f"{', '.join(due)}; please report it"
        )
    return head + "\n".join(lines) + "\n"


def _parted(
    known: list[tuple[PackagedRecipe, Recipe]],
) -> tuple[tuple[PackagedRecipe, Recipe], list[tuple[PackagedRecipe, Recipe]]]:
    """The demo, and those that train on one GPU."""
    demo = next(pair for pair in known if pair[0].name == _DEMO)
    return demo, [pair for pair in known if pair[0].num_devices == 1]


def _needs(packaged: PackagedRecipe) -> float:
    """The memory that one device needs, in GB."""
    found = _MEMORY.search(packaged.memory)
    return float(found[1]) if found else float(packaged.device_gb)


def _family(
    pairs: list[tuple[PackagedRecipe, Recipe]], model: str | None
) -> list[tuple[PackagedRecipe, Recipe]]:
    """Those made for the family of a model that none of them names: InternVL's, or Qwen's."""
    said = (model or "").lower()
    config = Path(model or "") / "config.json"
    if config.is_file():
        said += config.read_text(encoding="utf-8", errors="replace").lower()
    internvl = "internvl" in said
    return [pair for pair in pairs if ("internvl" in pair[1].model.name.lower()) is internvl]
