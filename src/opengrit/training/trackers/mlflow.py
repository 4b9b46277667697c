"""MLflow: where MLFLOW_TRACKING_URI says, by default MLflow's own database in the working folder; `mlflow ui` shows it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from transformers.integrations import MLflowCallback
from transformers.integrations.integration_utils import rewrite_logs

from opengrit.training.trackers.protocol import Tracked
from opengrit.training.trackers.rollouts import ShownRollout

log = logging.getLogger(__name__)
_RUN_TAG = "opengrit.run"  # holds our run's id, by which a resumed run finds its own


class MLflowTracker(MLflowCallback):
    """Logs to one run of MLflow, the same after a resume. The recipe is an artifact of it.

    transformers' own set-up would log arguments as parameters, which may never change, and a resumed run's do.
    """

    def __init__(self, run: Tracked) -> None:
        super().__init__()
        self._run = run
        self._log_artifacts = False
        self._async_log = True

    def setup(self, args: Any, state: Any, model: Any) -> None:
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", self._run.project)
        experiment = self._ml_flow.set_experiment(project)
        found = self._ml_flow.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`{_RUN_TAG}` = '{self._run.id}'",
            output_format="list",
            max_results=1,
        )
        if found:
            self._ml_flow.start_run(run_id=found[0].info.run_id)
        else:
            self._ml_flow.start_run(run_name=self._run.name, tags={_RUN_TAG: self._run.id})
        self._auto_end_run = True
        self._ml_flow.log_text(self._run.recipe, "recipe.yaml")
        log.info("MLflow: %s of experiment %s", self._run.name, project)
        self._initialized = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **given: Any
    ) -> None:
        known = {name: value for name, value in logs.items() if value is not None}
        super().on_log(args, state, control, logs=rewrite_logs(known), model=model, **given)

    def log_rollouts(self, rollouts: Sequence[ShownRollout], step: int) -> None:
        """A table rollouts/step-N.json among the artifacts, with the drawn pictures beside it."""
        columns = {name: [rollout.cells[name] for rollout in rollouts] for name in rollouts[0].cells}
        pictures = [self._ml_flow.Image(rollout.picture) for rollout in rollouts]
        self._ml_flow.log_table({"picture": pictures, **columns}, f"rollouts/step-{step:06d}.json")

    def close(self) -> None:
        if self._initialized and self._ml_flow.active_run() is not None:
            self._ml_flow.end_run()
        self._initialized = False
