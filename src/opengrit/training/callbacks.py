"""What happens between a trainer's steps: data order and evaluations, steps that are skipped, and stopping by a signal."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import gather
from transformers import Trainer, TrainerCallback

from opengrit.core.errors import RunError, Stopped
from opengrit.training.sharding import gather_weights
from opengrit.training.step_times import Part

_log = logging.getLogger(__name__)
MOST_IN_A_ROW = 5  # our choice: a single overflow passes, weights or data that always overflow do not
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GritCallback(TrainerCallback):
    """Keeps the data order and TRL's step counter in step with a resume, skips steps, and runs the evaluations."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer._step = state.global_step * args.gradient_accumulation_steps
        if self._trainer.accelerator.is_main_process:
            self._trainer.step_log.resume(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.order.set_epoch(state.global_step // self._trainer.steps_per_epoch)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A gradient of zero would still move weights, by momentum and decay; without one an optimizer does nothing.

        DeepSpeed has stepped by now (within `accelerator.backward`), with a gradient of zero.
        """
        if self._trainer.skips:
            for parameter in self._trainer.model.parameters():
                parameter.grad = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self._trainer
        # By step: every iteration of a generation that is skipped is skipped.
        trainer._metrics["train"]["judge/skipped_step"].append(float(trainer.skips))
        due = [one for one in trainer.evaluations if state.global_step % one.every == 0]
        if due:
            gather_weights(trainer.model)
        for evaluation in due:
            if trainer.accelerator.is_main_process and trainer.run is not None:
                with trainer.accelerator.autocast(), trainer.times.part(Part.EVALUATE):
                    records = evaluation.records(trainer.sampler, trainer.protocol)
                    probed = evaluation.probes(trainer.second_sampler, trainer.protocol, records)
                row = trainer.step_log.add_evaluation(
                    evaluation.name, records, step=state.global_step, probed=probed
                )
                trainer.step_log.trackers.take_evaluation(row, args, state, control)


class TimesCallback(TrainerCallback):
    """Starts a trainer's `times` with its first step, and says at the end where the time went."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.times.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.accelerator.is_main_process and (told := self._trainer.times.summary()):
            _log.info("the steps took %s", told)


class NonFiniteGuard(TrainerCallback):
    """Keeps NaN and infinities out of the weights. The Trainer would step with them, and log the mean of earlier losses.

    A skipped step has no effect on weights, moments and decay; its learning rate is used up. DeepSpeed has stepped before
    a callback can look: there the first such step ends the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer: Any = trainer
        self._loss_is_finite = True
        self._in_a_row = 0
        self._skipped = False  # the newest step

    def check_loss(self, loss: torch.Tensor) -> None:
        """Look at the loss of one forward pass."""
        self._loss_is_finite = self._loss_is_finite and bool(torch.isfinite(loss).all())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        parameters = [p for p in self._trainer.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        # All processes compute the norm of sharded gradients together, whatever each found in its loss.
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else None
        finite = (norm is None or bool(torch.isfinite(norm))) and self._loss_is_finite
        self._loss_is_finite = True
        all_finite = gather(torch.tensor([finite], device=self._trainer.accelerator.device)).all()
        self._skipped = not bool(all_finite)
        if not self._skipped:
            self._in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self._in_a_row += 1
        _log.warning("step %d is skipped: its loss or its gradient is not finite", state.global_step + 1)
        most = 1 if self._trainer.accelerator.distributed_type == DistributedType.DEEPSPEED else MOST_IN_A_ROW
        if self._in_a_row >= most:
            raise RunError(
                f"a step needs a finite loss and gradient, the last {self._in_a_row} up to step {state.global_step + 1} "
                "had none; they changed no weight and no checkpoint: lower learning_rate or look at the records of "
                "these steps, and resume with --resume-anyway"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; TRL logs the mean over the steps of a row."""
        self._trainer._metrics["train"]["nonfinite/skipped_step"].append(float(self._skipped))


class StopAtStepEnd(TrainerCallback):
    """On a signal, makes the Trainer save and stop at the end of the step. Use as a context around the steps.

    One process that gets the signal is enough: all agree at each step's end. A step in the middle of a generation's
    use (`cycle` steps are made with one) is not the end, unless no step is left that would use its rollouts: a
    checkpoint lacks them. A signal that the process ignores (as under nohup) stays ignored. A second signal has the
    system's own effect.
    """

    def __init__(self, trainer: Trainer, *, cycle: int = 1) -> None:
        self._trainer, self._cycle = trainer, cycle
        self._received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopAtStepEnd:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        # Not through logging: its stream may be in the middle of a line.
        os.write(2, b"stopping at the end of this step, with a checkpoint; once more stops at once\n")

    def agreed(self) -> int:
        """The signal that some process got, 0 for none; every process must ask at the same time."""
        return int(gather(torch.tensor([self._received], device=self._trainer.accelerator.device)).max())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_end = state.global_step % self._cycle == 0 or state.global_step >= state.max_steps
        if is_end and self.agreed():
            control.should_save = control.should_training_stop = True

    def raise_if_stopped(self, *, kept: bool) -> None:
        """Raise Stopped where a signal ended the steps, or came after the last one and a checkpoint holds it (`kept`)."""
        number = self.agreed()
        if not number:
            return
        name, state = signal.Signals(number).name, self._trainer.state
        if kept:
            raise Stopped(
                f"stopped by {name} after step {state.global_step} of {state.max_steps}",
                exit_code=128 + number,
            )
        _log.warning("%s came after the last step, which has no checkpoint: writing the final model", name)
