"""Weights & Biases: online with a key, otherwise files in RUN/wandb that `wandb sync` sends later."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from typing import Any

from transformers.integrations import WandbCallback

from opengrit.training.trackers.protocol import Tracked
from opengrit.training.trackers.rollouts import ShownRollout

log = logging.getLogger(__name__)


class WandbTracker(WandbCallback):
    """Takes the run that is open in this process, as in a notebook, or opens one that is the same after a resume."""

    def __init__(self, run: Tracked) -> None:
        super().__init__()
        self._run = run
        self._opened: Any = None  # the run of wandb that is ours to finish

    def setup(self, args: Any, state: Any, model: Any, **given: Any) -> None:
        if self._wandb.run is None:
            mode = self._mode()
            self._opened = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", self._run.project),
                name=self._run.name,
                id=self._run.id,
                # Without a network it cannot be looked up: the parts of one id become one run where they are sent.
                resume=None if mode == "offline" else "allow",
                mode=mode,
                dir=os.environ.get("WANDB_DIR", str(self._run.folder)),
            )
        named = copy.copy(args)
        named.run_name = self._run.name
        super().setup(named, state, model, **given)
        self._wandb.config.update({"recipe": self._run.recipe}, allow_val_change=True)

    def _mode(self) -> Any:
        """What WANDB_MODE says; without it, offline where nobody is logged in (wandb would ask for a key and wait)."""
        asked = os.environ.get("WANDB_MODE")
        if asked is not None or self._wandb.login(prompt=False, verify=False):
            return asked
        log.info(
            "wandb: offline because nobody is logged in; wandb sync %s/wandb/* uploads the run",
            self._run.folder,
        )
        return "offline"

    def on_log(
        self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **given: Any
    ) -> None:
        known = {name: value for name, value in logs.items() if value is not None}
        super().on_log(args, state, control, model=model, logs=known, **given)

    def log_rollouts(self, rollouts: Sequence[ShownRollout], step: int) -> None:
        """A table "rollouts", with the drawn picture in its first column, and the pictures by themselves for a slider of steps."""
        pictures = [
            self._wandb.Image(rollout.picture, caption=str(rollout.cells["question"])) for rollout in rollouts
        ]
        rows = [
            [picture, *rollout.cells.values()] for picture, rollout in zip(pictures, rollouts, strict=True)
        ]
        table = self._wandb.Table(columns=["picture", *rollouts[0].cells], data=rows)
        self._wandb.log({"rollouts": table, "rollouts/pictures": pictures, "train/global_step": step})

    def close(self) -> None:
        if self._opened is not None:
            self._opened.finish()
            self._opened = None
