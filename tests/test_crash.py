"""A training that is killed anywhere, again and again, ends where one ends that was not: the same weights, the same records."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from forked import command, ended
from opengrit import checkpoint
from opengrit.rundir import LineWriter, RunDir
from opengrit.sidecar import check_files, read_sidecar
from opengrit.trainer import GritTrainer
from opengrit.training import save_final
from small_runs import small_recipe

# Where a run can die: inside a call of one of these.
PHASES: dict[str, CodeType] = {
    "beginning": RunDir.create.__func__.__code__,
    "restoring": checkpoint.restore_weights.__code__,
    "generation": GritTrainer._roll_out.__code__,
    "record write": LineWriter._write.__code__,
    "loss": GritTrainer._compute_loss.__code__,
    "probe": GritTrainer.probe.__code__,
    "checkpoint write": checkpoint.save_whole.__code__,
    "sync": checkpoint._settle.__code__,
    "final model": save_final.__code__,
}
RENAMES = ("before rename", "after rename")  # of a checkpoint: all is written, and has its name or not yet
KILLS = 20


@dataclass(frozen=True)
class Moment:
    """The `event`-th thing that Python does within the `entry`-th call of a phase."""

    phase: str
    entry: int
    event: int


@dataclass
class Profile:
    """Counts what Python does in each phase; at `moment` the process kills itself, as `kill -9` would."""

    moment: Moment | None = None
    lengths: dict[str, list[int]] = field(default_factory=dict)
    inside: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        for phase, entry in self.inside.values():
            self.lengths[phase][entry] += 1
            self._die_at(phase, entry, self.lengths[phase][entry])
        if event == "call":
            for phase, code in PHASES.items():
                if frame.f_code is code:
                    self.lengths.setdefault(phase, []).append(0)
                    self.inside[id(frame)] = (phase, len(self.lengths[phase]) - 1)
        elif event == "return":
            self.inside.pop(id(frame), None)
        elif arg is os.rename and frame.f_code is PHASES["checkpoint write"]:
            phase = {"c_call": "before rename", "c_return": "after rename"}[event]
            self.lengths.setdefault(phase, []).append(0)
            self._die_at(phase, len(self.lengths[phase]) - 1, 0)

    def _die_at(self, phase: str, entry: int, event: int) -> None:
        if self.moment == Moment(phase, entry, event):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Measure:
    """Called in a process before its command: writes down how long each phase is."""

    out: Path

    def __call__(self) -> Callable[[], None]:
        profile = Profile()
        sys.setprofile(profile)

        def write() -> None:
            sys.setprofile(None)
            self.out.write_text(json.dumps(profile.lengths))

        return write


@dataclass(frozen=True)
class DieAt:
    """Called in a process before its command: it will not live past that moment."""

    moment: Moment

    def __call__(self) -> None:
        sys.setprofile(Profile(self.moment))


def lengths_of(path: Path) -> dict[str, list[int]]:
    return json.loads(path.read_text())


def draw(rng: random.Random, phase: str, lengths: dict[str, list[int]]) -> Moment:
    """A moment in a phase; the phase's first calls are the likelier ones, since a resumed run makes fewer."""
    calls = lengths[phase]
    entry = min(rng.randrange(len(calls)), rng.randrange(len(calls)))
    return Moment(phase, entry, rng.randint(min(1, calls[entry]), calls[entry]))


def check_readable(folder: Path) -> None:
    """Every checkpoint that has its name is whole, every record that has its line is one."""
    run = RunDir.open(folder)
    for path in run.checkpoints():
        sidecar = read_sidecar(path)
        assert sidecar is not None
        check_files(path, sidecar)
        assert sidecar.step == run.step_of(path)
    list(run.records())
    list(run.metrics())


def check_equal(folder: Path, whole: Path) -> None:
    """The same weights, optimizer, rollouts and measurements as those of the run that was not interrupted."""
    names = ["final/model.safetensors"]
    names += [f"checkpoints/step-00000{n}/{file}" for n in (2, 4, 6) for file in ("model.safetensors",)]
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = RunDir.open(folder), RunDir.open(whole)
    said = [{record.id: record for record in run.records()} for run in (ours, theirs)]
    assert said[0] == said[1]
    rows = [measured(run) for run in (ours, theirs)]
    assert rows[0] == rows[1]


def measured(run: RunDir) -> dict[tuple[int, bool], dict[str, Any]]:
    """The last row of each step, and of each step's probe, without what the clock says."""
    found = {}
    for row in run.metrics():
        is_probe = any(name.startswith("eval/") for name in row)
        found[row["step"], is_probe] = {k: v for k, v in row.items() if k != "step_time"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cycle", [1, 2], ids=["one step a generation", "two steps a generation"])
def test_twenty_kills_change_no_bit_of_the_weights_and_lose_no_record(cycle: int, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, num_iterations=cycle)
    whole, log, measures = tmp_path / "whole", tmp_path / "log", tmp_path / "lengths"
    assert ended(command("train", recipe, "--out", whole, "--quiet", log=log, before=Measure(measures))) == 0, (
        log.read_text()
    )
    lengths = lengths_of(measures) | {"restoring": [200]}
    assert set(lengths) == {*PHASES, *RENAMES}

    rng = random.Random(20 + cycle)
    phases = [*PHASES, *RENAMES]
    rng.shuffle(phases)
    killed: Counter[str] = Counter()
    runs, turn = [tmp_path / "run-1"], 0
    while killed.total() < KILLS // 2:
        out = runs[-1]
        moment = draw(rng, phases[turn % len(phases)], lengths)
        resume = ["--resume"] if (out / "recipe.yaml").exists() else []
        code = ended(command("train", recipe, "--out", out, "--quiet", *resume, log=log, before=DieAt(moment)))
        if code == 0:  # the moment did not come
            check_equal(out, whole)
            runs.append(tmp_path / f"run-{len(runs) + 1}")
        else:
            assert code == -signal.SIGKILL, log.read_text()
            killed[moment.phase] += 1
            turn += 1
            if (out / "recipe.yaml").exists():
                check_readable(out)
        assert len(runs) < KILLS
    out = runs[-1]
    resume = ["--resume"] if (out / "recipe.yaml").exists() else []
    assert ended(command("train", recipe, "--out", out, "--quiet", *resume, log=log)) == 0, log.read_text()
    check_equal(out, whole)
    assert len(killed) >= 8  # phases
