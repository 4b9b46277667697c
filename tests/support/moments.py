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
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, TrainerState

from opengrit.runs.folder import RunDir
from opengrit.runs.jsonl import LineWriter
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
    "evaluation": TrainingEvaluation.records.__code__,
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


class Moment(NamedTuple):
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


class Profile:
    """Counts what Python does in each place, or in those of some moments alone, and does something at these.

    It sees every call of a training: what it need not count costs it one look-up, and with the last moment it ends.
    """

    def __init__(self, at: dict[Moment, Callable[[], None]] | None = None) -> None:
        self.lengths: dict[str, list[int]] = {}
        self._at = at
        self._codes = {
            id(code): name
            for name, code in (PHASES | WRITES).items()
            if at is None or any(moment.place == name for moment in at)
        }  # by id: hashing a code object is slow
        self._inside: dict[int, tuple[str, int]] = {}

    def see(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._inside:
            for place, entry in tuple(self._inside.values()):
                self.lengths[place][entry] += 1
                self._reach(place)
        if event == "call":
            name = self._codes.get(id(frame.f_code))
            if name is not None:
                self._inside[id(frame)] = (name, len(self.lengths.get(name, ())))
                self._enter(name)
        elif event == "return":
            if self._inside:
                self._inside.pop(id(frame), None)
        elif arg is os.rename and frame.f_code is PHASES["checkpoint write"]:
            self._enter({"c_call": "before rename", "c_return": "after rename"}[event])

    def _enter(self, place: str) -> None:
        self.lengths.setdefault(place, []).append(0)
        self._reach(place)

    def _reach(self, place: str) -> None:
        if self._at is None:
            return
        entries = self.lengths[place]
        action = self._at.pop(Moment(place, len(entries) - 1, entries[-1]), None)
        if action is not None:
            if not self._at:
                sys.setprofile(None)
            action()


@dataclass(frozen=True)
class At:
    """Called in a process before its command: does something at each of some moments."""

    moments: tuple[tuple[Moment, Callable[[], None]], ...]

    def __call__(self) -> None:
        sys.setprofile(Profile(dict(self.moments)).see)


def at(moment: Moment, action: Callable[[], None], *more: Any) -> At:
    """`action` at `moment`; more pairs may follow."""
    return At(((moment, action), *zip(more[::2], more[1::2], strict=True)))


@dataclass(frozen=True)
class Measure:
    """Called in a process before its command: writes down how long each call of each place is."""

    out: Path

    def __call__(self) -> Callable[[], None]:
        profile = Profile()
        sys.setprofile(profile.see)

        def write() -> None:
            sys.setprofile(None)
            self.out.write_text(json.dumps(profile.lengths))

        return write
