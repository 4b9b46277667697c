"""What a checkpoint says of itself (step, positions, recipe, packages, processes, files) and whether a run can resume from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from opengrit.core.errors import RunError
from opengrit.data.fingerprint import sha256_of
from opengrit.runs.folder import environment_facts, write_atomically
from opengrit.runs.recipe_comparison import recipe_changes, recipe_hash

SIDECAR = "checkpoint.json"
STATE = "trainer_state.json"  # the Trainer's own: a folder of a checkpoint's name that has it is complete
# Another version of one of the packages may compute another step, or read a checkpoint's files otherwise. The other packages and
# Python are written down too, and a difference in them is no reason to refuse.
CHECKED_PACKAGES = ("opengrit", "torch", "transformers", "trl", "accelerate", "peft")
_ANEW = "the optimizer state is lost: the optimizer and the learning rate schedule start from the beginning"
_STATE_FILES = {  # how such files begin, and what one is usually called
    ("optimizer", "optimizer.pt"): _ANEW,  # the Trainer reads both or neither
    ("scheduler", "scheduler.pt"): _ANEW,
    ("rng_state", "rng_state.pth"): (
        "random numbers start from the seed again, so the run differs from an uninterrupted one"
    ),
}
_OF_DEEPSPEED = ("global_step",)  # its folder holds all of these


class FileFacts(BaseModel):
    """What a file of a checkpoint is: its size in bytes and its hash."""

    size: int
    sha256: str


class Sidecar(BaseModel, frozen=True):
    """A checkpoint's description of itself; all the files that a resume reads are among `files`, by name."""

    format: int = 1
    step: int
    cycle_step: int  # optimizer steps made with the newest generation; 0: the next step samples a new one
    data_order: dict[str, int]
    random_states: tuple[str, ...]  # the Trainer's files, one a process: Python, NumPy, torch and each device
    run: str | None
    recipe_sha256: str
    recipe: str
    world_size: int
    packages: dict[str, str]
    judge_cache: str | None
    data: dict[str, str] | None = None  # a hash of each set of rows and pictures; None: an earlier version
    files: dict[str, FileFacts]


def write_sidecar(
    folder: Path,
    *,
    step: int,
    cycle_step: int,
    data_order: Mapping[str, int],
    run: str | None,
    recipe: str,
    world_size: int,
    data: Mapping[str, str] | None = None,
) -> None:
    """Describe the checkpoint in `folder`, whose files are all written by now."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    sidecar = Sidecar(
        step=step,
        cycle_step=cycle_step,
        data_order=dict(data_order),
        random_states=tuple(sorted(p.name for p in folder.glob("rng_state*.pth"))),
        run=run,
        recipe_sha256=recipe_hash(recipe),
        recipe=recipe,
        world_size=world_size,
        packages=environment_facts()["packages"],
        judge_cache=_judge_cache(recipe),
        data=None if data is None else dict(data),
        files={
            path.relative_to(folder).as_posix(): FileFacts(
                size=path.stat().st_size, sha256=sha256_of(path) or ""
            )
            for path in files
        },
    )
    write_atomically(folder / SIDECAR, json.dumps(sidecar.model_dump(), indent=2, allow_nan=False) + "\n")


def read_sidecar(folder: Path) -> Sidecar | None:
    """A checkpoint's sidecar; None where it has none, as an earlier version wrote it.

    Raises RunError where the sidecar is not what `write_sidecar` writes.
    """
    try:
        return Sidecar.model_validate_json((folder / SIDECAR).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(folder, f"its {SIDECAR} cannot be read: {error}") from error
    except ValidationError as error:
        place, message = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        raise damaged(folder, f"its {SIDECAR} cannot be read: {place} {message}") from error


def check_files(folder: Path, sidecar: Sidecar, *, without: Sequence[str] = ()) -> None:
    """Raise RunError where a file is missing, or is not what was written; `without` some that are known to be missing."""
    for name, facts in sidecar.files.items():
        path = folder / name
        if name in without:
            continue
        if not path.is_file():
            raise damaged(folder, f"{name} is missing", instead=_instead(name))
        size = path.stat().st_size
        if size != facts.size:
            raise damaged(folder, f"{name} has {size} bytes of {facts.size}")
        if sha256_of(path) != facts.sha256:
            raise damaged(folder, f"{name} has changed since it was written")


def looks_whole(folder: Path, *, run: str | None) -> bool:
    """Whether this run wrote the checkpoint and all files have their sizes: what counts, and may be deleted."""
    try:
        sidecar = read_sidecar(folder)
    except RunError:
        return False
    if sidecar is None or run is None or sidecar.run != run:
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == facts.size
        for name, facts in sidecar.files.items()
    )


def lost_state(folder: Path, sidecar: Sidecar | None) -> dict[str, str]:
    """The files of the optimizer, the schedule and the random numbers that a checkpoint lacks, and what a resume without
    them means.

    Raises RunError where the trainer's own state is missing, without which nothing resumes.
    """
    if not (folder / STATE).is_file():
        raise damaged(folder, f"{STATE} is missing")
    there = {path.name for path in folder.iterdir()}
    lost: dict[str, str] = {}
    for (prefix, usual), meaning in _STATE_FILES.items():
        if sidecar is not None:
            lost |= {n: meaning for n in sidecar.files if n.startswith(prefix) and not (folder / n).is_file()}
        elif not any(name.startswith((prefix, *_OF_DEEPSPEED)) for name in there):
            lost[usual] = meaning
    return lost


def differences(
    sidecar: Sidecar | None,
    *,
    recipes: Sequence[str],
    world_size: int,
    packages: Mapping[str, str],
    data: Sequence[Mapping[str, str]] = (),
) -> list[str]:
    """What prevents an exact resume, one phrase each; `recipes` and `data` are the run's own, the newest last."""
    if sidecar is None:
        return [
            "the checkpoint does not say what wrote it (checkpoint.json is missing, as in earlier versions)"
        ]
    found = []
    if sidecar.recipe not in recipes:
        found += [f"recipe: {change}" for change in recipe_changes(sidecar.recipe, recipes[-1])]
    if sidecar.world_size != world_size:
        found.append(f"processes: {sidecar.world_size} then, {world_size} now")
    for name in CHECKED_PACKAGES:
        then, now = sidecar.packages.get(name), packages.get(name)
        if then != now:
            found.append(f"{name}: {then or 'not there'} then, {now or 'not there'} now")
    if sidecar.data is not None and data and sidecar.data not in data:
        sets = [name for name, found_hash in sidecar.data.items() if data[-1].get(name) != found_hash]
        found.append(
            f"data {', '.join(sets)}: rows or pictures changed since the checkpoint was written, and nothing records "
            "which"
        )
    if sidecar.cycle_step:
        found.append(f"generation: its rollouts had been used for {sidecar.cycle_step} step(s), and are lost")
    return found


def _instead(name: str) -> str:
    """What can be done without a file: of the trainer's state alone a run can resume without."""
    meaning = next((m for (prefix, _), m in _STATE_FILES.items() if name.startswith(prefix)), None)
    return "" if meaning is None else f"; --resume-anyway resumes without it: {meaning}"


def damaged(folder: Path, what: str, *, instead: str = "") -> RunError:
    """The error for a checkpoint that no run can resume from; it names the one before it as the remedy."""
    older = sorted(p.name for p in folder.parent.glob("step-??????") if p.name < folder.name)
    remedy = (
        f"--resume-from {older[-1]} resumes from the previous one (nothing is deleted)"
        if older
        else "there is no earlier one: start a new run"
    )
    return RunError(f"a checkpoint must be intact, {folder} is damaged ({what}); {remedy}{instead}")


def _judge_cache(recipe: str) -> str | None:
    found = yaml.safe_load(recipe)
    judge = found.get("judge") if isinstance(found, dict) else None
    return judge.get("cache") if isinstance(judge, dict) else None
