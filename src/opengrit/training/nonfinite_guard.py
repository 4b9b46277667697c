"""A step whose loss or gradient is not a number is left out and counted; several in a row end the training."""

from __future__ import annotations

import logging
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import gather
from transformers import Trainer, TrainerCallback

from opengrit.core.errors import RunError

log = logging.getLogger(__name__)
MOST_IN_A_ROW = 5  # our choice: a single overflow passes, weights or data that always overflow do not


class FiniteSteps(TrainerCallback):
    """Keeps NaN and infinities out of the weights. The Trainer would step with them, and log the mean of earlier losses.

    A step that is left out has no effect on weights, moments and decay; its learning rate is used up. `left_out` says
    whether the newest step is. DeepSpeed has stepped by the time anybody can look: there the first such step ends the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer: Any = trainer
        self._loss_is_finite = True
        self._in_a_row = 0
        self.left_out = False

    def saw(self, loss: torch.Tensor) -> None:
        """Take note of the loss of one forward pass."""
        self._loss_is_finite = self._loss_is_finite and bool(torch.isfinite(loss).all())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        parameters = [p for p in self._trainer.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        # Of gradients that processes share out all of them compute the norm together, whatever each found in its loss.
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else None
        finite = (norm is None or bool(torch.isfinite(norm))) and self._loss_is_finite
        self._loss_is_finite = True
        self.left_out = not self._all_agree(finite)
        if not self.left_out:
            self._in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self._in_a_row += 1
        log.warning("step %d is left out: its loss or its gradient is not finite", state.global_step + 1)
        most = 1 if self._trainer.accelerator.distributed_type == DistributedType.DEEPSPEED else MOST_IN_A_ROW
        if self._in_a_row >= most:
            raise RunError(
                f"a step needs a finite loss and gradient, the last {self._in_a_row} up to step {state.global_step + 1} had none; "
                "no weight was changed by them and the checkpoints are as they were: lower learning_rate or look at the "
                "records of these steps, and go on with --resume-anyway"
            )

    def _all_agree(self, finite: bool) -> bool:
        accelerator = self._trainer.accelerator
        if accelerator.num_processes == 1:
            return finite
        return bool(gather(torch.tensor([finite], device=accelerator.device)).all())
