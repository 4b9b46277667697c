"""The recipes that come with the package: found by name, and what each is for and needs, as its own head says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from opengrit.core.errors import RecipeError
from opengrit.core.messages import nearest

FOLDER = Path(__file__).parent / "packaged"
_SUFFIX = ".yaml"
_SAID = re.compile(r"^# (command|for|hardware|memory|disk|time): (.+)$", re.MULTILINE)
_DEVICES = re.compile(r"(\d+) x (\d+) GB")


@dataclass(frozen=True, slots=True)
class PackagedRecipe:
    """A file of the package and what the comments at its head say of it, "" where they say nothing."""

    name: str  # what commands take: the file's path in the folder, without its suffix
    path: Path
    command: str  # that takes it: opengrit train, for example
    purpose: str
    hardware: str  # devices x memory of one, or CPU
    memory: str  # that one device needs; like disk and time with whether it was measured or estimated
    disk: str  # the model, the checkpoints that lie there at once, and the trained model
    time: str  # of the training alone

    @property
    def num_devices(self) -> int:
        """GPUs it was made for; 0 where it needs none, or somebody else's."""
        found = _DEVICES.search(self.hardware)
        return int(found[1]) if found else 0

    @property
    def device_gb(self) -> int:
        """Memory of each of those GPUs in GB of 10^9 bytes; 0 where it needs none."""
        found = _DEVICES.search(self.hardware)
        return int(found[2]) if found else 0


def packaged_recipes() -> tuple[PackagedRecipe, ...]:
    """Every packaged recipe: those of `opengrit`, the smallest hardware first, then accelerate's own files."""
    recipes = [_read(path) for path in sorted(FOLDER.rglob(f"*{_SUFFIX}"))]
    return tuple(
        sorted(recipes, key=lambda r: (r.path.parent != FOLDER, r.num_devices * r.device_gb, r.device_gb))
    )


def packaged_recipe(name: str) -> PackagedRecipe:
    """The packaged recipe of that name. Raises RecipeError for any other name, with the nearest there is."""
    found = {recipe.name: recipe for recipe in packaged_recipes()}
    if name not in found:
        raise RecipeError(
            f"a packaged recipe must be in opengrit recipe list, {name} is not; "
            + (nearest_name(name) or "take one of those")
        )
    return found[name]


def packaged_path(path: Path) -> Path | None:
    """The packaged file that a recipe argument means; None where it means a file of one's own.

    A bare name means a packaged recipe, unless there is a file of that name: that one is taken.
    """
    name = str(path)
    if len(path.parts) != 1 or name.endswith((_SUFFIX, ".yml")) or path.is_file():
        return None
    packaged = FOLDER / f"{name}{_SUFFIX}"
    return packaged if packaged.is_file() else None


def nearest_name(written: str) -> str:
    """A remedy with the packaged recipe that was meant by a name or path that leads nowhere; "" where none is near."""
    names = [recipe.name for recipe in packaged_recipes() if recipe.path.parent == FOLDER]
    stem = Path(written).name.removesuffix(_SUFFIX).removesuffix(".yml")
    if stem in names:
        return f"write {stem}, a packaged recipe"
    near = nearest(stem, names)
    return f"did you mean {near}?" if near else ""


def _read(path: Path) -> PackagedRecipe:
    said = dict(_SAID.findall(path.read_text(encoding="utf-8")))
    return PackagedRecipe(
        name=path.relative_to(FOLDER).as_posix().removesuffix(_SUFFIX),
        path=path,
        command=said.get("command", ""),
        purpose=said.get("for", ""),
        hardware=said.get("hardware", ""),
        memory=said.get("memory", ""),
        disk=said.get("disk", ""),
        time=said.get("time", ""),
    )
