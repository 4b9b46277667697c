"""What a checkpoint says of itself (step, positions, recipe, packages, processes, files) and whether that fits a resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from opengrit.core.errors import RunError
from opengrit.runs.folder import environment_facts, write_atomically
from opengrit.runs.recipe_comparison import recipe_changes, recipe_hash

SIDECAR = "checkpoint.json"
_FORMAT = 1
# Another version of one of these may compute another step, or read a checkpoint's files otherwise. The other packages and
# Python are written down too, and a difference in them is no reason to refuse.
CHECKED_PACKAGES = ("opengrit", "torch", "transformers", "trl", "accelerate", "peft")
_RANDOM = "rng_state*.pth"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A checkpoint's own account. `files` are sizes and SHA-256 sums by name; all that a resume reads is among them."""

    step: int
    cycle_step: int  # optimizer steps made with the newest generation; 0: the next step draws a new one
    data_order: Mapping[str, int]
    random_states: tuple[str, ...]  # the Trainer's files, one a process: Python, NumPy, torch and each device
    run: str | None
    recipe: str
    world_size: int
    packages: Mapping[str, str]
    judge_cache: str | None
    files: Mapping[str, Mapping[str, Any]]

    @property
    def recipe_sha256(self) -> str:
        """The hash of the recipe it was trained with."""
        return recipe_hash(self.recipe)


def write_sidecar(
    folder: Path,
    *,
    step: int,
    cycle_step: int,
    data_order: Mapping[str, int],
    run: str | None,
    recipe: str,
    world_size: int,
) -> None:
    """Describe the checkpoint in `folder`, whose files are all written by now."""
    files = {
        path.relative_to(folder).as_posix(): _measured(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    account = {
        "format": _FORMAT,
        "step": step,
        "cycle_step": cycle_step,
        "data_order": dict(data_order),
        "random_states": sorted(p.name for p in folder.glob(_RANDOM)),
        "run": run,
        "recipe_sha256": recipe_hash(recipe),
        "recipe": recipe,
        "world_size": world_size,
        "packages": environment_facts()["packages"],
        "judge_cache": _judge_cache(recipe),
        "files": files,
    }
    write_atomically(folder / SIDECAR, json.dumps(account, indent=2, allow_nan=False) + "\n")


def read_sidecar(folder: Path) -> Sidecar | None:
    """What a checkpoint says of itself; None for one without a sidecar, which an earlier version wrote.

    Raises RunError where the sidecar is not what `write_sidecar` writes.
    """
    path = folder / SIDECAR
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Sidecar(
            step=int(found["step"]),
            cycle_step=int(found["cycle_step"]),
            data_order=dict(found["data_order"]),
            random_states=tuple(found["random_states"]),
            run=found["run"],
            recipe=str(found["recipe"]),
            world_size=int(found["world_size"]),
            packages=dict(found["packages"]),
            judge_cache=found["judge_cache"],
            files={str(name): dict(facts) for name, facts in found["files"].items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, f"its {SIDECAR} cannot be read: {error}") from error


def check_files(folder: Path, sidecar: Sidecar) -> None:
    """Raise RunError where a file is missing, of another size, or holds something else than was written."""
    for name, facts in sidecar.files.items():
        path = folder / name
        if not path.is_file():
            raise damaged(folder, f"{name} is missing")
        size = path.stat().st_size
        if size != facts["size"]:
            raise damaged(folder, f"{name} has {size} bytes of {facts['size']}")
        if _sum(path) != facts["sha256"]:
            raise damaged(folder, f"{name} holds something else than was written")


def looks_whole(folder: Path, *, run: str | None) -> bool:
    """Whether this run wrote the checkpoint and all files have their sizes: what may be counted on, and deleted."""
    try:
        sidecar = read_sidecar(folder)
    except RunError:
        return False
    if sidecar is None or run is None or sidecar.run != run:
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == facts["size"]
        for name, facts in sidecar.files.items()
    )


def differences(
    sidecar: Sidecar | None, *, recipes: Sequence[str], world_size: int, packages: Mapping[str, str]
) -> list[str]:
    """What stands in the way of an exact resume, one phrase each; `recipes` are the run's own, the newest last."""
    if sidecar is None:
        return [
            "the checkpoint does not say what wrote it (it has no checkpoint.json, as those of earlier versions)"
        ]
    found = []
    if sidecar.recipe_sha256 not in map(recipe_hash, recipes):
        found += [f"recipe: {change}" for change in recipe_changes(sidecar.recipe, recipes[-1])]
    if sidecar.world_size != world_size:
        found.append(f"processes: {sidecar.world_size} then, {world_size} now")
    for name in CHECKED_PACKAGES:
        then, now = sidecar.packages.get(name), packages.get(name)
        if then != now:
            found.append(f"{name}: {then or 'not there'} then, {now or 'not there'} now")
    if sidecar.cycle_step:
        found.append(f"generation: its rollouts were in use for {sidecar.cycle_step} step(s), and are gone")
    return found


def damaged(folder: Path, what: str) -> RunError:
    """The error for a checkpoint that cannot be gone on from, which names the one before it as the remedy."""
    older = sorted(p.name for p in folder.parent.glob("step-??????") if p.name < folder.name)
    remedy = (
        f"--resume-from {older[-1]} goes on from the one before it (nothing is deleted)"
        if older
        else "there is none before it: start a new run"
    )
    return RunError(f"a checkpoint is whole, {folder} is damaged ({what}); {remedy}")


def _judge_cache(recipe: str) -> str | None:
    found = yaml.safe_load(recipe)
    judge = found.get("judge") if isinstance(found, dict) else None
    return judge.get("cache") if isinstance(judge, dict) else None


def _measured(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _sum(path)}


def _sum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
