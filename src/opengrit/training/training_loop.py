"""What a training by reinforcement and one by example share: taking the steps, the final model, and the end of a command."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState

from opengrit.core.errors import OpenGritError, Stopped
from opengrit.models.resolve import save_origin
from opengrit.publishing.card import CARD
from opengrit.publishing.facts import card_of
from opengrit.runs.folder import RunDir
from opengrit.training.callbacks import StopAtStepEnd
from opengrit.training.checkpoint import save_whole
from opengrit.training.resume import on_first_process
from opengrit.training.sharding import whole_weights

_log = logging.getLogger(__name__)


def take_steps(trainer: Any, run: RunDir, *, checkpoint: Path | None, cycle: int = 1) -> None:
    """Take the steps of the run that are left; `cycle` of them are made with one generation.

    Raises Stopped where SIGTERM or SIGINT ended them, with a checkpoint. A signal after the last step that no checkpoint
    holds does not: what is left is to write the final model, and that costs less than the steps.
    """
    if checkpoint == run.checkpoint_path(trainer.args.max_steps):  # only the final model is missing
        trainer._load_from_checkpoint(str(checkpoint))
        return
    with StopAtStepEnd(trainer, cycle=cycle) as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        stop.raise_if_stopped(kept=on_first_process(run.checkpoint_path(trainer.state.global_step).is_dir))


def save_final(trainer: Any, target: Path) -> None:
    """Write the model (or its adapter), its processor and its frame to one folder that `opengrit.models.load` reads, with
    a card where the trainer has a run.

    All processes call this; the first one writes.
    """
    weights = whole_weights(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)

    def write(staged: Path) -> None:
        model.save_pretrained(staged, state_dict=weights)
        trainer.loaded.processor.save_pretrained(staged)
        save_origin(staged, trainer.loaded)
        (staged / CARD).unlink(missing_ok=True)  # peft's is an empty form that names a folder of this machine
        if trainer.run is not None:
            _write_card(trainer.run, staged, frame=trainer.loaded.frame)

    save_whole(target, write)


def _write_card(run: RunDir, staged: Path, *, frame: str) -> None:
    try:
        text = card_of(run, staged, frame=frame)
    except OpenGritError as error:  # of the run's other files; weights are worth more than their card
        _log.warning("the final model has no %s: %s", CARD, error)
        return
    (staged / CARD).write_text(text, encoding="utf-8")


def run_as_command(training: Callable[[], RunDir]) -> RunDir | None:
    """Train, and leave the group of processes that trained together; the run on the first of them, None on the others.

    A training that a signal stopped leaves the group before Stopped is raised; the first process alone has its message.
    """
    try:
        run = training()
    except Stopped as stopped:
        message = f"{stopped}; the same command with --resume continues" if _leave_processes() else ""
        raise Stopped(message, exit_code=stopped.exit_code) from stopped
    return run if _leave_processes() else None


def _leave_processes() -> bool:
    """End the process group; whether this is its first process. Threads of the group that outlive the interpreter abort it."""
    state = PartialState()
    state.wait_for_everyone()
    leads = state.is_main_process
    state.destroy_process_group()
    return leads
