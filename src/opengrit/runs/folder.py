"""A run's folder: recipe, environment, records, metrics, checkpoints. It only ever grows."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrit.core.errors import RunError
from opengrit.core.numbered_files import all_of, next_free
from opengrit.core.records import from_json
from opengrit.core.types import Record
from opengrit.runs.jsonl import REMEDY, LineWriter, read_ids, read_objects
from opengrit.runs.lock import LOCK
from opengrit.runs.recipe_comparison import kind_of, listed, recipe_changes, recipe_hash

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
RECORDS = "records.jsonl"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
CHECKPOINTS = "checkpoints"
ALARMS = "alarms.jsonl"
RUN_ID = "run"  # the key in environment.json of the name that no other run has
FINAL = "final"  # the trained model in a training's folder
STAGED = ".staged-"  # our own half-written files; a crash may leave them, and they count as nothing
_TRAININGS = ("train", "sft", None)
_CHECKPOINT = re.compile(r"step-(\d+)")

# What can change a number. Versions only: no user, host or path.
_PACKAGES = (
    "opengrit",
    "torch",
    "torchvision",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "tokenizers",
    "pillow",
    "numpy",
    "deepspeed",
    "vllm",
)


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run. Build it with `create` (to write) or `open` (to read)."""

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        recipe: str,
        resume: bool = False,
        anyway: bool = False,
        differences: Sequence[str] = (),
        seeds: Mapping[str, int] | None = None,
    ) -> RunDir:
        """A run folder with its recipe and environment in it, new, or with `resume` the one already there.

        `recipe` is the resolved recipe as YAML. A resumed run adds its environment under the next free name, with the
        `differences` it was resumed in spite of; `anyway` takes another recipe, which is added under the next free name too.

        Raises:
            RunError: the folder holds anything and `resume` is not asked for; or it is asked for and the folder
                holds no run, or a run of another recipe; or it cannot be written.
        """
        cls.check(path, recipe=recipe, resume=resume, anyway=anyway)
        run = cls(Path(path))
        if not resume:
            _make(run.path)
            write_atomically(run.path / RECIPE, recipe)
        elif run.recipe != recipe:
            write_atomically(next_free(run.path / RECIPE), recipe)
        environment = {
            RUN_ID: run.id or uuid.uuid4().hex,
            "recipe_sha256": recipe_hash(recipe),
            **environment_facts(),
            "seeds": dict(seeds or {}),
        }
        if differences:
            environment["resumed_anyway"] = list(differences)
        text = json.dumps(environment, indent=2, allow_nan=False) + "\n"
        write_atomically(next_free(run.path / ENVIRONMENT), text)
        _make(run.path / CHECKPOINTS)
        return run

    @classmethod
    def check(cls, path: str | Path, *, recipe: str, resume: bool = False, anyway: bool = False) -> None:
        """Raise RunError wherever `create` would; nothing is written."""
        run = cls(Path(path))
        if resume:
            run._check_same(recipe, anyway=anyway)
        else:
            run._check_empty(recipe)
        _check_writable(run.path)

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """The run in a folder, to read. Raises RunError where there is none."""
        run = cls(Path(path))
        if not os.path.isfile(run.path / RECIPE):
            raise RunError(f"a run folder holds {RECIPE}, {path} does not; name the folder given to --out")
        return run

    @property
    def recipe(self) -> str:
        """The resolved recipe, YAML; of a run that was resumed with another one, the newest."""
        return self.recipes[-1]

    @property
    def recipes(self) -> list[str]:
        """The resolved recipes the run was trained with, in order; more than one only where it was resumed anyway."""
        return [path.read_text(encoding="utf-8") for path in self._recipe_files()]

    def _recipe_files(self) -> list[Path]:
        return all_of(self.path / RECIPE)

    @property
    def id(self) -> str | None:
        """A name that no other run has; None where an earlier version wrote all of the run."""
        for path in all_of(self.path / ENVIRONMENT):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            name = found.get(RUN_ID) if isinstance(found, dict) else None
            if isinstance(name, str):
                return name
        return None

    def append_records(self) -> LineWriter:
        """A writer of `records.jsonl`: `write(to_line(record))`, or `write_record(record)`."""
        return LineWriter(self.path / RECORDS)

    def append_metrics(self) -> LineWriter:
        """A writer of `metrics.jsonl`; use `write_metrics`."""
        return LineWriter(self.path / METRICS)

    def append_evaluations(self) -> LineWriter:
        """A writer of `evaluations.jsonl`, the figures of each evaluation while training; use `write_metrics`."""
        return LineWriter(self.path / EVALUATIONS)

    def append_alarms(self) -> LineWriter:
        """A writer of `alarms.jsonl`, which is there only where something went wrong; use `write_metrics`."""
        return LineWriter(self.path / ALARMS)

    def alarms(self) -> Iterator[dict[str, Any]]:
        """Every line of `alarms.jsonl`, in order of writing; after a resume some stand twice."""
        return (value for _, value in read_objects(self.path / ALARMS))

    def records(self) -> Iterator[Record]:
        """Every record, in order of writing; a torn last line is left out.

        A run resumed from a checkpoint repeats the steps after it. Where an id stands more than once, only the
        last record of that id is given.
        """
        path = self.path / RECORDS
        last = {id: number for number, id in read_ids(path)}
        for number, value in read_objects(path):
            try:
                record = from_json(value)  # also of what a later line replaces: garbage may have its id
            except RunError as error:
                raise RunError(f"{path}:{number}: {error}; or {REMEDY}") from error
            if last[record.id] == number:
                yield record

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every row of metrics, in order of writing; after a resume some steps stand twice."""
        return (value for _, value in read_objects(self.path / METRICS))

    def evaluations(self) -> Iterator[dict[str, Any]]:
        """Every line of `evaluations.jsonl`, in order of writing; after a resume some stand twice."""
        return (value for _, value in read_objects(self.path / EVALUATIONS))

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint after `step` optimizer steps lies or will lie."""
        return self.path / CHECKPOINTS / f"step-{step:06d}"

    def checkpoints(self) -> list[Path]:
        """The finished checkpoints, by step. Staged ones have other names and are not listed."""
        folder = self.path / CHECKPOINTS
        if not folder.is_dir():
            return []
        found = [
            (int(m[1]), p) for p in folder.iterdir() if p.is_dir() and (m := _CHECKPOINT.fullmatch(p.name))
        ]
        return [path for _, path in sorted(found)]

    def step_of(self, checkpoint: Path) -> int:
        """The number of optimizer steps a checkpoint of `checkpoints()` was made after."""
        return int(checkpoint.name.partition("-")[2])

    @property
    def _is_run(self) -> bool:
        return os.path.isfile(self.path / RECIPE)

    @property
    def _kind(self) -> str | None:
        try:
            return kind_of(self.recipe)
        except UnicodeDecodeError:
            return None  # a file of somebody's own

    def _check_empty(self, recipe: str) -> None:
        if os.path.isdir(self.path):
            found = sorted(
                p.name for p in self.path.iterdir() if p.name != LOCK and not p.name.startswith(STAGED)
            )
            if found:
                raise RunError(
                    f"a new run needs a new folder, {self.path} holds {self._held(found[0])}; choose another "
                    f"--out{self._or_resume(kind_of(recipe))}"
                )
        elif os.path.lexists(self.path):
            raise RunError(f"a run's folder is a folder, {self.path} is a file; choose another --out")

    def _held(self, first: str) -> str:
        """What is in the folder, for a message; `first` is the name of something in it."""
        if not self._is_run or self._kind is None:
            return first
        began = self._has_steps or self._kind not in _TRAININGS
        return "a run" if began else "a run without a checkpoint"

    def _or_resume(self, kind: str | None) -> str:
        # A training resumes where it is asked to; the other commands resume their own runs unasked.
        if kind not in _TRAININGS or not self._is_run or self._kind not in (kind, None):
            return ""
        return f", or --resume to {'resume' if self._has_steps else 'start'} the run in it"

    @property
    def _has_steps(self) -> bool:
        return bool(self.checkpoints()) or os.path.isdir(self.path / FINAL)

    def _check_same(self, recipe: str, *, anyway: bool) -> None:
        if not self._is_run:
            raise RunError(
                f"--resume needs a run to resume, {self.path} holds none; leave it out to start one"
            )
        if recipe_hash(self.recipe) == recipe_hash(recipe):
            return
        kind = kind_of(recipe)
        if None not in (kind, self._kind) and kind != self._kind:
            raise RunError(
                f"a run resumes with the command that started it, {self.path} holds a run of another command; choose "
                "another --out"
            )
        changes = listed(recipe_changes(self.recipe, recipe))
        finished = os.path.isdir(self.path / FINAL)
        if not anyway and not finished:
            own = self._recipe_files()[-1]
            raise RunError(
                f"a run resumes with its own recipe, {self.path} was started with another ({changes}); "
                + (
                    f"use {own}, another --out for a new run, or --resume-anyway to resume with the new recipe"
                    if kind in _TRAININGS
                    else f"use the settings in {own}, or another --out"
                )
            )
        if finished:
            raise RunError(
                f"a finished run cannot be continued, {self.path} has its {FINAL}/ ({changes}); start a new run with "
                f"model: {self.path} and another --out"
            )


def environment_facts() -> dict[str, Any]:
    """Python, platform and package versions: what can change a number, and nothing about who or where."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or nothing: staged beside it, synced, then renamed over it.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        descriptor, staged = tempfile.mkstemp(prefix=STAGED, dir=path.parent)
    except OSError as error:
        raise RunError(
            f"a run's folder must be writable, {path.parent} is not ({error.strerror}); check it"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(staged, 0o644)  # mkstemp's files are for their owner alone
        os.replace(staged, path)
    except OSError as error:
        raise RunError(
            f"a file must be writable, {path} is not ({error.strerror}); check its name and the free space"
        ) from error
    finally:
        Path(staged).unlink(missing_ok=True)  # renamed away where all went well


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"a run's folder must be writable, {folder} is not ({error.strerror}); choose another --out"
        ) from error


def _check_writable(folder: Path) -> None:
    """Raise RunError where the folder, or the nearest one above it that exists, cannot be written to."""
    there = next((p for p in (folder, *folder.absolute().parents) if os.path.lexists(p)), Path("/"))
    if not os.path.isdir(there):
        raise RunError(
            f"a run's folder must be writable, {folder} is not ({there} is no folder); choose another --out"
        )
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RunError(f"a run's folder must be writable, {there} is not; choose another --out")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
