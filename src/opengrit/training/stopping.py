"""SIGTERM and SIGINT end a training at the end of a step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate.utils import gather
from transformers import Trainer, TrainerCallback

from opengrit.core.errors import Stopped

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAtStepEnd(TrainerCallback):
    """Takes note of a signal, and has the Trainer save and stop at the end of the step. Use as a context around the steps.

    With several processes one that got the signal is enough: they agree at each step's end. A step in the middle of a
    generation's use (`cycle` steps are made with one) is not the end: the checkpoint would lack the rollouts, unless
    no step is left that would use them. A signal that the process ignores (as under nohup) stays ignored. From the first
    signal on, the next one has the system's own effect.
    """

    def __init__(self, trainer: Trainer, *, cycle: int = 1) -> None:
        self._trainer, self._cycle = trainer, cycle
        self._noted = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopAtStepEnd:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        # Not through logging: its stream may be in the middle of a line.
        os.write(2, b"stopping at the end of this step, with a checkpoint; once more stops at once\n")

    def agreed(self) -> int:
        """The signal that some process got, 0 for none; every process must ask at the same time."""
        accelerator = self._trainer.accelerator
        if accelerator.num_processes == 1:
            return self._noted
        own = torch.tensor([self._noted], device=accelerator.device)
        return int(gather(own).max())

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
        if not kept:
            _log.warning(
                "%s came after the last step, which no checkpoint holds: the final model is written all the same",
                name,
            )
            return
        raise Stopped(
            f"stopped by {name} after step {state.global_step} of {state.max_steps}", exit_code=128 + number
        )
