"""Moments in a training, counted by what Python does: to kill it there, to signal it, or to let its disk be full from then on.

Nothing of ours is replaced: the interpreter tells of every call (`sys.setprofile`), and what happens is the kernel's doing.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerState

from opengrit.runs.folder import LineWriter, RunDir
from opengrit.training import checkpoint
from opengrit.training import checkpoint_sidecar as sidecar
from opengrit.training.trainer import GritTrainer
from opengrit.training.training_evaluation import TrainingEvaluation
from opengrit.training.training_loop import save_final

# Where a run can die: inside a call of one of these.
PHASES: dict[str, CodeType] = {
    "beginning": RunDir.create.__func__.__code__,
    "restoring": checkpoint.restore_weights.__code__,
    "generation": GritTrainer._roll_out.__code__,
    "record write": LineWriter._write.__code__,
    "loss": GritTrainer._compute_loss.__code__,
    "evaluation": TrainingEvaluation.measure.__code__,
    "checkpoint write": checkpoint.save_whole.__code__,
    "sync": checkpoint._settle.__code__,
    "final model": save_final.__code__,
}
# What is written, one call each; torch.save: training_args, optimizer, scheduler, random states of each checkpoint.
WRITES: dict[str, CodeType] = {
    "weights": PreTrainedModel.save_pretrained.__code__,
    "torch.save": torch.save.__code__,
    "trainer_state": TrainerState.save_to_json.__code__,
    "sidecar": sidecar.write_sidecar.__code__,
}
RENAMES = ("before rename", "after rename")  # of a checkpoint: all is written, and has its name or not yet
_NAME_OF = {code: name for name, code in (PHASES | WRITES).items()}


@dataclass(frozen=True)
class Moment:
    """The `event`-th thing that Python does within the `entry`-th call of a place; both count from 0."""

    place: str
    entry: int = 0
    event: int = 0


def kill() -> None:
    """As `kill -9` would."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    """As a cluster's scheduler does."""
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    """As Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def fill_disk() -> None:
    """From now on no file grows: the kernel refuses each write with "File too large"."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@dataclass
class Profile:
    """Counts what Python does in each place, and does something at some moments."""

    at: dict[Moment, Callable[[], None]] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    _inside: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        for place, entry in list(self._inside.values()):
            self.lengths[place][entry] += 1
            self._reach(place)
        if event == "call":
            name = _NAME_OF.get(frame.f_code)
            if name is not None:
                self._inside[id(frame)] = (name, len(self.lengths.setdefault(name, [])))
                self.lengths[name].append(0)
                self._reach(name)
        elif event == "return":
            if self._inside:
                self._inside.pop(id(frame), None)
        elif arg is os.rename and frame.f_code is PHASES["checkpoint write"]:
            name = {"c_call": "before rename", "c_return": "after rename"}[event]
            self.lengths.setdefault(name, []).append(0)
            self._reach(name)

    def _reach(self, place: str) -> None:
        entry = len(self.lengths[place]) - 1
        action = self.at.pop(Moment(place, entry, self.lengths[place][entry]), None) if self.at else None
        if action is not None:
            action()


@dataclass(frozen=True)
class At:
    """Called in a process before its command: does something at each of some moments."""

    moments: tuple[tuple[Moment, Callable[[], None]], ...]

    def __call__(self) -> None:
        sys.setprofile(Profile(dict(self.moments)))


def at(moment: Moment, action: Callable[[], None], *more: Any) -> At:
    """`action` at `moment`; more pairs may follow."""
    return At(((moment, action), *zip(more[::2], more[1::2], strict=True)))


@dataclass(frozen=True)
class Measure:
    """Called in a process before its command: writes down how long each call of each place is."""

    out: Path

    def __call__(self) -> Callable[[], None]:
        profile = Profile()
        sys.setprofile(profile)

        def write() -> None:
            sys.setprofile(None)
            self.out.write_text(json.dumps(profile.lengths))

        return write
