"""How a run starts or resumes: its folder is locked, and the checkpoint to resume from is found, verified and compared."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from opengrit.core.errors import OpenGritError, RunError
from opengrit.core.plugins import OwnFile
from opengrit.core.types import Example
from opengrit.data.fingerprint import Fingerprint, fingerprint
from opengrit.models.identity import identity_of
from opengrit.recipes.data_section import Source
from opengrit.runs.data_file import (
    Data,
    changes_since,
    hashes,
    important,
    noted_hashes,
    tell_renamed,
    tell_unknown,
    write_data,
)
from opengrit.runs.folder import ALARMS, EVALUATIONS, FINAL, METRICS, RECORDS, RunDir, environment_facts
from opengrit.runs.jsonl import check_lines
from opengrit.runs.lock import held
from opengrit.runs.origin import Origin, data_origin, read_origin, write_origin
from opengrit.runs.own_code import keep_own_code, own_code_changes
from opengrit.runs.recipe_comparison import listed, recipe_changes
from opengrit.training.checkpoint_sidecar import check_files, differences, lost_state, read_sidecar

log = logging.getLogger(__name__)
TRAIN = "train"  # what the rows that a run learns from are called in its data file
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Resume:
    """What a user asked for: to resume a run, in spite of differences or not, from the newest checkpoint or from another."""

    wanted: bool = False
    anyway: bool = False
    checkpoint: str | None = None  # its name; None: the newest

    @classmethod
    def asked(cls, *, resume: bool, anyway: bool = False, checkpoint: str | None = None) -> Resume:
        """As the options --resume, --resume-anyway and --resume-from say; each of the last two asks to resume as well."""
        return cls(wanted=resume or anyway or checkpoint is not None, anyway=anyway, checkpoint=checkpoint)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts: from a checkpoint or from its first step, and the differences that it resumes in spite of."""

    checkpoint: Path | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made from: rows by what they are for, the base model's name, the data sets of the rows it learns from,
    and the files of the user's own that the recipe names.
    """

    rows: Mapping[str, Sequence[Example]]
    model: str
    sources: tuple[Source, ...] = ()
    own_files: tuple[OwnFile, ...] = ()

    def data(self) -> dict[str, Fingerprint]:
        """The fingerprint of each set of rows."""
        return {name: fingerprint(examples) for name, examples in self.rows.items()}

    def origin(self) -> Origin:
        """Where the run takes its model and its data from. Raises ModelError for a name that stands for no model."""
        data = tuple(
            data_origin(TRAIN, source.spec, source.images, table=source.table) for source in self.sources
        )
        return Origin(os.getcwd(), identity_of(self.model), data)


def is_finished(out: str | Path, *, recipe: str, resume: Resume, inputs: Inputs) -> bool:
    """Whether there is a run to resume that has its final model; the log says so then, and whether its data changed since.

    Raises RunError where the folder cannot be used, and where a finished run is to resume from one of its checkpoints.
    """

    def look() -> bool:
        RunDir.check(out, recipe=recipe, resume=resume.wanted, anyway=resume.anyway)
        if not resume.wanted or not (Path(out) / FINAL).is_dir():
            return False
        if resume.checkpoint is not None:
            raise _finished(RunDir.open(out), checkpoint=resume.checkpoint)
        for difference in _data_differences(Path(out), inputs.data()):
            log.warning("%s was trained on other data: %s", out, difference)
        log.info("%s is finished (it has its %s/); nothing was trained", out, FINAL)
        return True

    return on_first_process(look)


@contextmanager
def locked_start(out: str | Path, *, recipe: str, resume: Resume, inputs: Inputs) -> Iterator[Start]:
    """Lock the run's folder for the block, on the first process; all get what it found, or the error it met.

    Raises RunError where another training has the lock, where the checkpoint to resume from is damaged, and where it
    comes from another recipe, number of processes or version of a package, or from other rows or pictures, and
    `resume.anyway` does not accept that.
    """
    with ExitStack() as stack:
        yield on_first_process(
            lambda: _lock_and_find(stack, Path(out), recipe=recipe, resume=resume, inputs=inputs)
        )


def create_run(
    out: str | Path, *, recipe: str, seed: int, resume: Resume, start: Start, inputs: Inputs
) -> RunDir:
    """The run's folder, made by the first process, with what its data is."""

    def create() -> None:
        run = RunDir.create(
            out,
            recipe=recipe,
            resume=resume.wanted,
            anyway=resume.anyway,
            differences=start.differences,
            seeds={"train": seed},
        )
        write_data(run.path, inputs.data())
        write_origin(run.path, replace(inputs.origin(), own_code=keep_own_code(run.path, inputs.own_files)))

    on_first_process(create)
    return RunDir.open(out)


def _data_differences(folder: Path, now: Data) -> list[str]:
    """What changed in the data since the run was last resumed, one phrase each; what makes no difference is told."""
    changes = changes_since(folder, now)
    if changes is None:
        tell_unknown(folder)
        return []
    tell_renamed(changes)
    return important(changes)


def on_first_process(action: Callable[[], _T]) -> _T:
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


def _model_differences(folder: Path, name: str) -> list[str]:
    """That the base model is another one, in one phrase; nothing where it is the same, or was not noted."""
    origin, now = read_origin(folder), identity_of(name)
    if origin is None or origin.model is None or not origin.model.is_another(now):
        return []
    return [f"model: {origin.model} then, {now} now"]


def _lock_and_find(stack: ExitStack, out: Path, *, recipe: str, resume: Resume, inputs: Inputs) -> Start:
    stack.enter_context(held(out))
    # Again: another training may have run between the first check and the lock.
    RunDir.check(out, recipe=recipe, resume=resume.wanted, anyway=resume.anyway)
    if not resume.wanted:
        return Start()
    run = RunDir.open(out)
    check_lines(run.path / RECORDS, keys=("id", "example", "completion"))
    check_lines(run.path / METRICS, keys=("step",))
    check_lines(run.path / EVALUATIONS, keys=("step",))
    check_lines(run.path / ALARMS)
    found = [f"recipe: {change}" for change in recipe_changes(run.recipe, recipe)]
    data = inputs.data()
    found += _data_differences(run.path, data)
    found += _model_differences(run.path, inputs.model)
    found += [f"own code: {change}" for change in own_code_changes(run.path, inputs.own_files)]
    checkpoint = _checkpoint_of(run, resume.checkpoint)
    if checkpoint is not None:
        sidecar = read_sidecar(checkpoint)
        lost = lost_state(checkpoint, sidecar)
        if sidecar is not None:
            log.info("verifying %s", checkpoint)
            check_files(checkpoint, sidecar, without=[*lost] if resume.anyway else ())
        found += differences(
            sidecar,
            recipes=[*run.recipes, recipe],
            world_size=PartialState().num_processes,
            packages=environment_facts()["packages"],
            data=[*noted_hashes(run.path), hashes(data)],
        )
        found += [f"{name} is missing: {meaning}" for name, meaning in lost.items()]
    if found and not resume.anyway:
        raise RunError(
            f"a run resumes with the settings it was trained with, {checkpoint or out} differs ({listed(found)}); "
            "restore them, or resume anyway with --resume-anyway"
        )
    for difference in found:
        log.warning("resumed anyway: %s", difference)
    if resume.checkpoint is not None and checkpoint is not None:
        _set_aside(run, after=checkpoint)
    return Start(checkpoint, tuple(found))


def _checkpoint_of(run: RunDir, name: str | None) -> Path | None:
    checkpoints = run.checkpoints()
    if name is None:
        return checkpoints[-1] if checkpoints else None
    for path in checkpoints:
        if path.name == name:
            return path
    known = ", ".join(path.name for path in checkpoints) or "none"
    raise RunError(f"--resume-from names a checkpoint of the run, {run.path} has no {name}; it has {known}")


def _finished(run: RunDir, *, checkpoint: str) -> RunError:
    """The error for a finished run that is to resume from a checkpoint; the remedy is a new run from it, or the newest."""
    checkpoints = run.checkpoints()
    named = [path for path in checkpoints if path.name == checkpoint]
    model = (named or checkpoints[-1:] or [run.path])[0]
    return RunError(
        f"a finished run cannot be continued, {run.path} has its {FINAL}/ and --resume-from names {checkpoint}; start a "
        f"new run with model: {model} and another --out"
    )


def _set_aside(run: RunDir, *, after: Path) -> None:
    """Rename the checkpoints after the one to resume from: nothing is lost, and new ones can have their names."""
    for path in run.checkpoints():
        if run.step_of(path) > run.step_of(after):
            number = 1
            while os.path.lexists(aside := path.with_name(f"{path.name}.set-aside-{number}")):
                number += 1
            path.rename(aside)
            log.warning("%s is set aside as %s", path, aside.name)
