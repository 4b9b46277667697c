"""Checkpoints that appear whole or not at all, and weights that are restored completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from opengrit.errors import RunError

STATE = (
    "trainer_state.json"  # the Trainer's own; a checkpoint is complete when the folder with it has its name
)
_ADAPTER = "adapter_model.safetensors"


def save_whole(
    target: Path,
    write: Callable[[Path], None],
    *,
    leads: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill a staged folder, sync it to the disk and rename it: there is never half of a checkpoint.

    With several processes each one calls this; one of them `leads`, and `wait` returns when all have come to it.
    Raises RunError where `target` stands already: a checkpoint is not overwritten.
    """
    if target.exists():
        raise RunError(f"a checkpoint is written once, {target} stands already; choose another --out")
    staged = target.with_name(f".staged-{target.name}")
    wait()
    if leads:
        if staged.exists():  # left by a crash, complete in nothing
            shutil.rmtree(staged)
        staged.mkdir(parents=True)
    wait()
    write(staged)
    wait()
    if leads:
        readable = (
            staged.stat().st_mode & 0o666
        )  # safetensors writes files that nobody but their owner can read
        for path in sorted(staged.rglob("*"), reverse=True):
            if path.is_file():
                path.chmod(readable)
            _sync(path)
        _sync(staged)
        os.rename(staged, target)
        _sync(target.parent)
    wait()


def save_step(trainer: Any, target: Path, save: Callable[[], None]) -> None:
    """Let a transformers Trainer write its checkpoint of this step to `target`, with every process calling this.

    `save` is the Trainer's own `_save_checkpoint`, which writes to a folder of its naming in `args.output_dir`. A checkpoint
    that stands already is left: a resumed run comes by it again.
    """
    if (target / STATE).is_file():
        return
    run_dir, trainer.args.output_dir = trainer.args.output_dir, ""
    leads, wait = trainer.accelerator.is_main_process, trainer.accelerator.wait_for_everyone

    def write(staged: Path) -> None:
        trainer.args.output_dir = str(staged)
        save()
        wait()
        if leads:
            inner = staged / f"checkpoint-{trainer.state.global_step}"
            for path in inner.iterdir():
                path.rename(staged / path.name)
            inner.rmdir()

    try:
        save_whole(target, write, leads=leads, wait=wait)
    finally:
        trainer.args.output_dir = run_dir


def restore_weights(model: Any, folder: Path) -> None:
    """Copy a checkpoint's weights into `model`, all of them, with the keys mapped as `from_pretrained` maps them.

    A plain `load_state_dict` of the saved file would find no common names and leave the model as it was.
    Raises RunError when a tensor is missing, left over or of another shape.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        _restore_adapter(model, folder)
    else:
        _restore_full(model, folder)


def _restore_full(model: Any, folder: Path) -> None:
    try:
        source, report = type(model).from_pretrained(
            folder,
            dtype=next(model.parameters()).dtype,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _broken(folder, str(error).splitlines()[0]) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise _broken(
                folder, f"{kind.replace('_', ' ')}: {', '.join(sorted(map(str, report[kind]))[:3])}"
            )
    model.load_state_dict(source.state_dict(), strict=True)


def _restore_adapter(model: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not (folder / _ADAPTER).is_file():
        raise _broken(folder, f"{_ADAPTER} is not there")
    try:
        saved = load_file(folder / _ADAPTER)
    except (OSError, SafetensorError) as error:
        raise _broken(folder, str(error)) from error
    ours = get_peft_model_state_dict(model)
    wrong = sorted(set(ours) ^ set(saved)) or sorted(k for k in ours if ours[k].shape != saved[k].shape)
    if wrong:
        raise _broken(folder, f"missing, left over or of another shape: {', '.join(wrong[:3])}")
    set_peft_model_state_dict(model, saved)


def _broken(folder: Path, what: str) -> RunError:
    return RunError(
        f"a checkpoint restores every tensor of the model, {folder} does not ({what}); "
        "resume from another checkpoint or start a new run"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
