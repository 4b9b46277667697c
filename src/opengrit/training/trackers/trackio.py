"""trackio: a database on this machine (TRACKIO_DIR), which `trackio show` opens; nothing is sent anywhere unless asked for."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from transformers.integrations import TrackioCallback
from transformers.integrations.integration_utils import rewrite_logs

from opengrit.training.trackers.protocol import Tracked
from opengrit.training.trackers.rollouts import ShownRollout

log = logging.getLogger(__name__)


class TrackioTracker(TrackioCallback):
    """Logs under our steps, where transformers' callback lets trackio count calls. A resumed run keeps its name and goes on."""

    def __init__(self, run: Tracked) -> None:
        super().__init__()
        self._run = run

    def setup(self, args: Any, state: Any, model: Any, **given: Any) -> None:
        named = copy.copy(args)
        named.project, named.run_name = self._run.project, self._run.name
        with redirect_stdout(io.StringIO()):  # how to open the dashboard, in seven lines
            super().setup(named, state, model, **given)
        self._trackio.config["recipe"] = self._run.recipe
        log.info("trackio: %s, trackio show --project %s", self._run.name, self._run.project)

    def on_log(
        self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **given: Any
    ) -> None:
        if not self._initialized:
            self.setup(args, state, model)
        known = {name: value for name, value in logs.items() if value is not None}
        row = {**rewrite_logs(known), "train/global_step": state.global_step}
        self._trackio.log(row, step=state.global_step)

    def log_rollouts(self, rollouts: Sequence[ShownRollout], step: int) -> None:
        """A table "rollouts", with the drawn picture in its first column."""
        rows = [{"picture": self._trackio.Image(rollout.picture), **rollout.cells} for rollout in rollouts]
        self._trackio.log({"rollouts": self._trackio.Table(data=rows)}, step=step)

    def on_train_end(self, *given: Any, **more: Any) -> None:
        with redirect_stdout(io.StringIO()):
            super().on_train_end(*given, **more)

    def close(self) -> None:
        if self._initialized:
            self._initialized = False
            with redirect_stdout(io.StringIO()):
                self._trackio.finish()
