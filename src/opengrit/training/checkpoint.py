"""Checkpoints that appear whole or not at all, and weights that are restored completely or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from opengrit.core.errors import RunError
from opengrit.runs.folder import STAGED, RunDir
from opengrit.training.checkpoint_sidecar import looks_whole, write_sidecar

STATE = (
    "trainer_state.json"  # the Trainer's own; a checkpoint is complete when the folder with it has its name
)
_ADAPTER = "adapter_model.safetensors"
_log = logging.getLogger(__name__)


def save_whole(
    target: Path,
    write: Callable[[Path], None],
    *,
    describe: Callable[[Path], None] = lambda folder: None,
    leads: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill a staged folder, sync it to the disk and rename it: there is never half of a checkpoint.

    With several processes each one calls this; one of them `leads` and may `describe` what all have written, and `wait`
    returns when all have come to it. Raises RunError where `target` stands already (a checkpoint is not overwritten), and
    where something cannot be written: what is half written is removed then, and nothing else.
    """
    if target.exists():
        raise RunError(f"a checkpoint is written once, {target} stands already; choose another --out")
    staged = target.with_name(f"{STAGED}{target.name}")
    wait()
    try:
        if leads:
            if staged.exists():  # left by a crash, complete in nothing
                shutil.rmtree(staged)
            staged.mkdir(parents=True)
        wait()
        write(staged)
        wait()
        if leads:
            describe(staged)
            _settle(staged)
            os.rename(staged, target)
            _sync(target.parent)
    except (OSError, SafetensorError, RuntimeError, RunError) as error:
        if not _is_refusal(error):
            raise
        shutil.rmtree(staged, ignore_errors=True)  # it may be what fills the disk
        if isinstance(error, RunError):
            raise
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        if isinstance(error, RuntimeError):
            what = f"torch stopped writing, perhaps at a full disk: {what}"
        raise RunError(
            f"a checkpoint must be writable, {target} was not ({what}); those before it are as they were: "
            "free some space or mend the folder, and go on with --resume"
        ) from error
    wait()


def _is_refusal(error: Exception) -> bool:
    """Whether a file could not be written; torch and safetensors have words of their own for that."""
    torchs = ("PytorchStreamWriter", "inline_container", "iostream error")
    if isinstance(error, (OSError, SafetensorError, RunError)):
        return True
    return any(word in str(error) for word in torchs)


def _settle(staged: Path) -> None:
    """Readable by those who can read the folder, and on the disk. (safetensors writes files for their owner alone.)"""
    readable = staged.stat().st_mode & 0o666
    for path in sorted(staged.rglob("*"), reverse=True):
        if path.is_file():
            path.chmod(readable)
        _sync(path)
    _sync(staged)


def save_step(
    trainer: Any,
    run: RunDir,
    save: Callable[[], None],
    *,
    data_order: Mapping[str, int],
    cycle_step: int = 0,
) -> None:
    """Let a transformers Trainer write its checkpoint of this step into the run, with every process calling this.

    `save` is the Trainer's own `_save_checkpoint`, which writes to a folder of its naming in `args.output_dir`; where the
    data order and the newest generation stand is written beside it. A checkpoint that stands already is left: a resumed
    run comes by it again.
    """
    target = run.checkpoint_path(trainer.state.global_step)
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

    def describe(staged: Path) -> None:
        write_sidecar(
            staged,
            step=trainer.state.global_step,
            cycle_step=cycle_step,
            data_order=data_order,
            run=run.id,
            recipe=run.recipe,
            world_size=trainer.accelerator.num_processes,
        )

    try:
        save_whole(target, write, describe=describe, leads=leads, wait=wait)
    finally:
        trainer.args.output_dir = run_dir


def thin_out(run: RunDir, *, keep: int, best: Mapping[int, float] | None = None) -> list[Path]:
    """Remove the run's checkpoints but for the newest `keep` and, of those measured (`best`, by step), the best one.

    Only checkpoints that this run wrote count and go; one that is damaged, or of another run, is left and not counted. A
    checkpoint loses its name before its files, so that there is never half of one. Returns those removed.
    """
    own = [path for path in run.checkpoints() if looks_whole(path, run=run.id)]
    kept = set(own[-keep:])
    measured = [path for path in own if run.step_of(path) in (best or {})]
    if best and measured:
        kept.add(max(measured, key=lambda path: (best[run.step_of(path)], run.step_of(path))))
    gone = [path for path in own if path not in kept]
    for path in gone:
        leaving = path.with_name(f"{STAGED}removed-{path.name}")
        shutil.rmtree(leaving, ignore_errors=True)  # left by a crash
        os.rename(path, leaving)
        _sync(path.parent)
        shutil.rmtree(leaving, ignore_errors=True)
        if leaving.exists():  # held open somewhere, on a network mount
            _log.warning("%s could not be removed; it counts as nothing and may be deleted", leaving)
    return gone


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
    from opengrit.training.sharding import model_class, set_weights

    try:
        source, report = model_class(model).from_pretrained(
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
    set_weights(model, source.state_dict())


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
