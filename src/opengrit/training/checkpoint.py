"""Checkpoints that appear whole or not at all, and weights that are restored completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Trainer

from opengrit.core.errors import ModelError, RunError, first_line
from opengrit.models.resolve import save_origin
from opengrit.models.weight_files import ADAPTER, require_floats, stored_adapter, stored_model
from opengrit.models.weights import (
    require_adapter_fit,
    require_finite,
    require_finite_tensors,
    require_fit,
    without_tables,
)
from opengrit.runs.data_file import noted_hashes
from opengrit.runs.folder import STAGED, RunDir
from opengrit.training.checkpoint_sidecar import STATE, write_sidecar
from opengrit.training.sharding import drop_second_copy, model_class, set_weights

_TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream error")  # in its RuntimeErrors


def save_whole(
    target: Path,
    write: Callable[[Path], None],
    *,
    leads: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill a staged folder, sync it to the disk and rename it: there is never half of a checkpoint.

    With several processes each one calls this; one of them `leads`, and `wait` returns when all have called it. Raises
    RunError where `target` exists (a checkpoint is not overwritten), and where something cannot be written: the staged
    folder is removed then, and nothing else.
    """
    if target.exists():
        raise RunError(f"a checkpoint is written once, {target} exists; choose another --out")
    staged = target.with_name(f"{STAGED}{target.name}")
    wait()
    try:
        if leads:
            if staged.exists():  # left by a crash
                shutil.rmtree(staged)
            staged.mkdir(parents=True)
        wait()
        write(staged)
        wait()
        if leads:
            _settle(staged)
            os.rename(staged, target)
            sync(target.parent)
    except (OSError, SafetensorError, RuntimeError, RunError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in _TORCH_CANNOT_WRITE):
            raise
        shutil.rmtree(staged, ignore_errors=True)  # it may be what fills the disk
        if isinstance(error, RunError):
            raise
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        if isinstance(error, RuntimeError):
            what = f"torch stopped writing, perhaps at a full disk: {what}"
        raise RunError(
            f"a checkpoint must be writable, {target} was not ({what}); earlier ones are intact: free some space or fix "
            "the folder, and resume with --resume"
        ) from error
    wait()


def _settle(staged: Path) -> None:
    """Readable by those who can read the folder, and on the disk. (safetensors writes files for their owner alone.)"""
    readable = staged.stat().st_mode & 0o666
    for path in sorted(staged.rglob("*"), reverse=True):
        if path.is_file():
            path.chmod(readable)
        sync(path)
    sync(staged)


def save_checkpoint(
    trainer: Any,
    model: Any,
    trial: Any,
    *,
    run: RunDir | None,
    data_order: Mapping[str, int],
    cycle_step: int = 0,
) -> None:
    """Write a transformers Trainer's checkpoint of this step into the run; every process calls this.

    `data_order` and `cycle_step` say where the data order and the newest generation are. A checkpoint that is there
    already is left: a resumed run passes it again. Raises RunError where the trainer has no run.
    """
    if run is None:
        raise RunError("a checkpoint belongs to a run folder, this trainer has none; give it run=")
    step = trainer.state.global_step
    target = run.checkpoint_path(step)
    if (target / STATE).is_file():
        return
    output_dir = trainer.args.output_dir
    leads, wait = trainer.accelerator.is_main_process, trainer.accelerator.wait_for_everyone

    def write(staged: Path) -> None:
        trainer.args.output_dir = str(staged)
        # Past TRL's override, which writes a model card that names this machine's folders.
        Trainer._save_checkpoint(trainer, model, trial)
        inner = staged / f"checkpoint-{step}"
        if leads:
            drop_second_copy(inner)
            (inner / "README.md").unlink(
                missing_ok=True
            )  # peft's empty form, which names this machine's folders
            save_origin(inner, trainer.loaded)
        wait()
        if leads:
            for path in inner.iterdir():
                path.rename(staged / path.name)
            inner.rmdir()
            write_sidecar(
                staged,
                step=step,
                cycle_step=cycle_step,
                data_order=data_order,
                run=run.id,
                recipe=run.recipe,
                world_size=trainer.accelerator.num_processes,
                data=next(reversed(noted_hashes(run.path)), None),
            )

    try:
        save_whole(target, write, leads=leads, wait=wait)
    finally:
        trainer.args.output_dir = output_dir


def restore_weights(model: Any, folder: Path) -> None:
    """Copy a checkpoint's weights into `model`, all of them, with the keys mapped as `from_pretrained` maps them.

    A plain `load_state_dict` of the saved file would find no common names and leave the model as it was.
    Raises ModelError when a tensor is missing, left over, of another shape or no finite number, and when a file is damaged:
    the model is as it was then.
    """
    try:
        if isinstance(model, PeftModel):
            _restore_adapter(model, folder)
        else:
            _restore_full(model, folder)
    except ModelError as error:
        raise ModelError(
            f"{error}; or resume from another checkpoint (--resume-from), or start a new run"
        ) from error


def _restore_full(model: Any, folder: Path) -> None:
    name, config = str(folder), model.config
    stored = stored_model(folder, name)
    require_floats(stored, config, name)
    try:
        with without_tables():
            source, report = model_class(model).from_pretrained(
                folder,
                dtype=next(model.parameters()).dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"a checkpoint restores every tensor of the model, {folder} does not ({first_line(error)}); copy it again"
        ) from error
    require_fit(report, name)
    require_finite(source, name)
    set_weights(model, source.state_dict())


def _restore_adapter(model: Any, folder: Path) -> None:
    name = str(folder)
    stored = stored_adapter(folder, name)
    require_floats(stored, None, name)
    require_adapter_fit(model, {key: tensor.shape for key, tensor in stored.items()}, name)
    saved = load_file(folder / ADAPTER)
    require_finite_tensors(saved, name)
    set_peft_model_state_dict(model, saved)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
