"""Where a step's row of metrics goes: metrics.jsonl, the alarms, and the progress table or the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from opengrit.runs.alarms import Setting, Watchman, alarm_row, alarms_of, resumed_row, zero_loss_is_normal
from opengrit.runs.folder import RunDir
from opengrit.training.progress_table import ProgressTable

log = logging.getLogger(__name__)


class StepLog:
    """Takes the rows of a training, on its first process. Without a run nothing is written."""

    def __init__(
        self, run: RunDir | None, *, setting: Setting, progress: ProgressTable | None = None
    ) -> None:
        self._run, self._setting, self._progress = run, setting, progress
        self.monitor = Watchman(setting)
        self._zero_loss_explained = False

    def resume(self, step: int) -> None:
        """Let the alarm monitor recall the metrics up to that step, and mark alarms of later steps, which repeat."""
        if self._run is None:
            return
        rows = {row["step"]: row for row in self._run.metrics() if "loss" in row}
        self.monitor.recall(rows[earlier] for earlier in sorted(rows) if earlier <= step)
        if any(alarm.step > step for alarm in alarms_of(self._run.alarms())):
            with self._run.append_alarms() as writer:
                writer.write_metrics(resumed_row(step))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write and show a step's row, and log and write the alarms it raises."""
        self.write(row)
        normal = None if self._zero_loss_explained else zero_loss_is_normal(row, self._setting)
        if normal is not None:
            log.info(normal)
            self._zero_loss_explained = True
        for alarm in self.monitor.take(row):
            log.warning("alarm at step %d, %s: %s", alarm.step, alarm.kind.value, alarm.text)
            if self._run is not None:
                with self._run.append_alarms() as writer:
                    writer.write_metrics(alarm_row(alarm))
            if self._progress is not None:
                self._progress.warn(alarm)
        if self._progress is not None:
            self._progress.show(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        if self._run is not None:
            with self._run.append_metrics() as writer:
                writer.write_metrics(row)
