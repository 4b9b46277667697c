"""The trackers that a recipe names, opened for one run: what they are given, when, and that they are closed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from opengrit.core.errors import RecipeError
from opengrit.core.types import Record
from opengrit.recipes.sft_recipe import SftTrain
from opengrit.recipes.trackers import TrackerName
from opengrit.recipes.train_section import Train
from opengrit.runs.folder import RunDir
from opengrit.training.trackers.protocol import Tracked, Tracker
from opengrit.training.trackers.rollouts import shown_rollouts


@dataclass(slots=True)
class Trackers:
    """The trackers of one run, on its first process; elsewhere, and where none is named, an empty one.

    A table of rollouts is logged with the first step and then every `rollout_steps` (None: never).
    """

    opened: Sequence[Tracker] = ()
    rollout_steps: int | None = None
    _last_table: int | None = None

    @property
    def callbacks(self) -> tuple[Any, ...]:
        """The trackers as the callbacks of transformers' that they are too."""
        return tuple(self.opened)

    def take_rollouts(self, records: Sequence[Record], step: int) -> None:
        """Log a table of a step's rollouts to each tracker, where one is due."""
        if not self.opened or self.rollout_steps is None:
            return
        if (
            self._last_table is not None
            and step // self.rollout_steps <= self._last_table // self.rollout_steps
        ):
            return
        self._last_table = step
        rollouts = shown_rollouts(records)
        if rollouts:
            for tracker in self.opened:
                tracker.log_rollouts(rollouts, step)

    def take_evaluation(self, row: Mapping[str, float], args: Any, state: Any, control: Any) -> None:
        """Log what an evaluation during training found; what the trainer logs itself reaches the trackers by it."""
        # transformers' callbacks write "eval_" as "eval/", and "train/" before everything else.
        named = {f"eval_{name.removeprefix('eval/')}": value for name, value in row.items()}
        for tracker in self.opened:
            tracker.on_log(args, state, control, logs=named)


def check_installed(names: Sequence[TrackerName], *, section: str) -> None:
    """Raise RecipeError for a tracker whose package is not installed; `section` is the recipe's that names it."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"{section}.report_to names installed trackers, {name} is not; pip install 'opengrit[track]' (or {name} "
                "alone), or leave it out"
            )


@contextmanager
def open_trackers(section: Train | SftTrain, run: RunDir, *, checkpoint: Path | None) -> Iterator[Trackers]:
    """The trackers that a recipe's section names, for the steps of a training; none on processes but the first.

    A run resumed from a `checkpoint` goes on in the run of each tracker that it had.
    """
    names = section.report_to if PartialState().is_main_process else ()
    tracked = Tracked.of(run, project=section.project, checkpoint=checkpoint)
    opened: list[Tracker] = []
    try:
        for name in dict.fromkeys(names):
            opened.append(_open(name, tracked))
        every = section.log_rollouts_steps if isinstance(section, Train) else None
        yield Trackers(opened, every, tracked.step or None)
    finally:
        for tracker in opened:
            tracker.close()


def _open(name: TrackerName, run: Tracked) -> Tracker:
    match name:  # each imports a package that only those who name it have
        case "tensorboard":
            from opengrit.training.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(run)
        case "trackio":
            from opengrit.training.trackers.trackio import TrackioTracker

            return TrackioTracker(run)
        case "wandb":
            from opengrit.training.trackers.wandb import WandbTracker

            return WandbTracker(run)
        case "mlflow":
            from opengrit.training.trackers.mlflow import MLflowTracker

            return MLflowTracker(run)
