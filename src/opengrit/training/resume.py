"""How a run is begun or gone on with: its folder held, and the checkpoint to start from found, read through and compared."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from opengrit.core.errors import OpenGritError, RunError
from opengrit.runs.folder import FINAL, RunDir, environment_facts
from opengrit.runs.lock import held
from opengrit.runs.recipe_comparison import listed, recipe_changes
from opengrit.training.checkpoint_sidecar import check_files, differences, read_sidecar

log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Resume:
    """What a user asked for: to go on with a run, in spite of differences or not, from the newest checkpoint or from one."""

    wanted: bool = False
    anyway: bool = False
    start: str | None = None  # a checkpoint's name; None: the newest

    @classmethod
    def asked(cls, *, resume: bool, anyway: bool = False, start: str | None = None) -> Resume:
        """As the options --resume, --resume-anyway and --resume-from say; each of the last two asks to resume as well."""
        return cls(wanted=resume or anyway or start is not None, anyway=anyway, start=start)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run whose folder is held: the checkpoint it starts from, and the differences that it is resumed in spite of."""

    start: Path | None = None
    differences: tuple[str, ...] = ()


@contextmanager
def begun(out: str | Path, *, recipe: str, resume: Resume) -> Iterator[Begun]:
    """Hold the run's folder for the block, on the first process; all get what it found, or the error it met.

    Raises RunError where another training holds the folder, where the checkpoint to start from is damaged, and where it
    comes from another recipe, number of processes or version of a package and `resume.anyway` does not take that.
    """
    with ExitStack() as stack:
        yield lead(lambda: _begin(stack, Path(out), recipe=recipe, resume=resume))


def lead(action: Callable[[], _T]) -> _T:
    """What `action` returns on the first process, on all of them; an error of ours is raised on all of them too."""
    state = PartialState(cpu=not torch.cuda.is_available())
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = action()
        except OpenGritError as error:
            found[1] = error
    if state.num_processes > 1:
        broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def _begin(stack: ExitStack, out: Path, *, recipe: str, resume: Resume) -> Begun:
    stack.enter_context(held(out))
    # Once more: another training may have come and gone between the first look and the lock.
    RunDir.check(out, recipe=recipe, resume=resume.wanted, anyway=resume.anyway)
    if not resume.wanted:
        return Begun()
    run = RunDir.open(out)
    recipes = [*run.recipes, recipe]
    found = [f"recipe: {change}" for change in recipe_changes(run.recipe, recipe)]
    start = _start_of(run, resume.start)
    if start is not None:
        sidecar = read_sidecar(start)
        if sidecar is not None:
            log.info("reading %s through", start)
            check_files(start, sidecar)
        found += differences(
            sidecar,
            recipes=recipes,
            world_size=PartialState().num_processes,
            packages=environment_facts()["packages"],
        )
    if found and not resume.anyway:
        raise RunError(
            f"a run is resumed with what it was trained with, {start or out} differs ({listed(found)}); "
            "use that, or --resume-anyway to go on all the same"
        )
    for difference in found:
        log.warning("resumed anyway: %s", difference)
    if resume.start is not None and start is not None:
        _set_aside(run, after=start)
    return Begun(start, tuple(found))


def _start_of(run: RunDir, named: str | None) -> Path | None:
    checkpoints = run.checkpoints()
    if named is None:
        return checkpoints[-1] if checkpoints else None
    for path in checkpoints:
        if path.name == named:
            return path
    known = ", ".join(path.name for path in checkpoints) or "none"
    raise RunError(f"--resume-from names a checkpoint of the run, {run.path} has no {named}; it has {known}")


def finished(run: RunDir, *, start: str) -> RunError:
    """The error for a finished run that is to go on from a checkpoint; the remedy is a new run from it, or the newest."""
    checkpoints = run.checkpoints()
    named = [path for path in checkpoints if path.name == start]
    model = (named or checkpoints[-1:] or [run.path])[0]
    return RunError(
        f"a finished run is not trained on, {run.path} has its {FINAL}/ and --resume-from names {start}; "
        f"start a new run with model: {model} and another --out"
    )


def _set_aside(run: RunDir, *, after: Path) -> None:
    """Give the checkpoints after the one to start from another name: nothing is lost, and new ones can take theirs."""
    for path in run.checkpoints():
        if run.step_of(path) > run.step_of(after):
            number = 1
            while os.path.lexists(aside := path.with_name(f"{path.name}.set-aside-{number}")):
                number += 1
            path.rename(aside)
            log.warning("%s is set aside as %s", path, aside.name)
