"""TensorBoard: event files in the run's own folder, `tensorboard --logdir RUNS` shows all runs below it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.integrations import TensorBoardCallback

from opengrit.training.trackers.protocol import Tracked
from opengrit.training.trackers.rollouts import Cell, ShownRollout

log = logging.getLogger(__name__)
FOLDER = "tensorboard"  # in the run's folder


class TensorBoardTracker(TensorBoardCallback):
    """Writes RUN/tensorboard. The steps that a resumed run takes again replace those that were logged before."""

    def __init__(self, run: Tracked) -> None:
        super().__init__()
        self._run = run

    def _init_summary_writer(self, args: Any) -> None:
        again = self._run.step + 1 if self._run.step else None
        self.tb_writer = self._SummaryWriter(log_dir=str(self._run.folder / FOLDER), purge_step=again)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.logging_dir = str(
            self._run.folder / FOLDER
        )  # not a folder beside the scratch files of this process
        super().on_train_begin(args, state, control, **given)
        if self.tb_writer is not None:
            self.tb_writer.add_text("recipe", _fenced(self._run.recipe))
            log.info("TensorBoard: tensorboard --logdir %s", self._run.folder.parent)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        known = {name: value for name, value in logs.items() if value is not None}
        super().on_log(args, state, control, logs=known, **given)

    def log_rollouts(self, rollouts: Sequence[ShownRollout], step: int) -> None:
        """The pictures as rollouts/1, rollouts/2 and so on, and the table as the text "rollouts"."""
        if self.tb_writer is None:
            return
        for number, rollout in enumerate(rollouts, start=1):
            self.tb_writer.add_image(
                f"rollouts/{number}", np.asarray(rollout.picture), step, dataformats="HWC"
            )
        self.tb_writer.add_text("rollouts", _markdown([rollout.cells for rollout in rollouts]), step)
        self.tb_writer.flush()

    def close(self) -> None:
        if self.tb_writer is not None:
            self.tb_writer.close()
            self.tb_writer = None


def _markdown(rows: Sequence[dict[str, Cell]]) -> str:
    """A table with the rollout's number in front, the one of its picture. What a model wrote is text in it, not markup."""
    columns = list(rows[0])
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[str(n), *(_cell(row[name]) for name in columns)] for n, row in enumerate(rows, start=1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    escaped = str(value).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|`*_[]":
        escaped = escaped.replace(mark, f"\\{mark}")
    return " ".join(escaped.split())


def _fenced(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
