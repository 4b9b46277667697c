"""What a tracker is told of a run, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from opengrit.runs.folder import RunDir
from opengrit.training.trackers.rollouts import ShownRollout

_SHORT_ID = 6  # characters of a run's id in its name: two folders of one name are two runs


@dataclass(frozen=True, slots=True)
class Tracked:
    """A run as trackers know it. `id` is the same each time the run is resumed; `step` is the one it resumes after."""

    project: str
    name: str
    id: str
    folder: Path
    recipe: str
    step: int

    @classmethod
    def of(cls, run: RunDir, *, project: str, checkpoint: Path | None) -> Tracked:
        """The run in a folder, resumed from a checkpoint of it or begun."""
        id = run.id or run.path.resolve().name
        name = f"{run.path.resolve().name}-{id[:_SHORT_ID]}"
        step = 0 if checkpoint is None else run.step_of(checkpoint)
        return cls(project, name, id, run.path, run.recipe, step)


class Tracker(Protocol):
    """A callback of transformers' that is told of metrics by the trainer, and of rollouts by us."""

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None) -> Any:
        """Take a row of metrics."""

    def log_rollouts(self, rollouts: Sequence[ShownRollout], step: int) -> None:
        """Show a table of rollouts that were sampled for a step; there is at least one."""

    def close(self) -> None:
        """Keep what was logged and let go of the run; closing twice is harmless."""
