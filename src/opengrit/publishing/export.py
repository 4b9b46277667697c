"""From a run to a folder that others load: adapters merged, processor, generation config, frame and card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from opengrit.core.errors import ModelError, RunError
from opengrit.models.resolve import base_of, names_adapter, packaged_names, resolve, save_origin, saved_frame
from opengrit.models.weight_files import ADAPTER, ADAPTER_CONFIG
from opengrit.publishing.card import CARD
from opengrit.publishing.evaluated import figures_of
from opengrit.publishing.facts import STOP, card_of
from opengrit.publishing.places import places_in
from opengrit.runs.folder import CHECKPOINTS, FINAL, STAGED, RunDir

if TYPE_CHECKING:
    from opengrit.models.families import Loaded

Dtype = Literal["float32", "bfloat16", "float16"]
# Files of a model that hold names and numbers only, so that what reads as a path is one.
_CONFIGS = ("config.json", "generation_config.json", ADAPTER_CONFIG, "opengrit.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights to export: the folder they lie in, the run that made them, and the step, None for the final ones."""

    folder: Path
    run: RunDir
    step: int | None


def trained_in(name: str | Path) -> Trained:
    """The weights that a run's folder, or one of its checkpoints, stands for. Raises ModelError and RunError."""
    folder = Path(resolve(str(name)))
    is_checkpoint = folder.parent.name == CHECKPOINTS
    parent = folder.parent.parent if is_checkpoint else folder.parent
    if not (is_checkpoint or folder.name == FINAL):
        raise RunError(
            f"an export needs the run that made the model, {name} is a model without a run; name a folder of opengrit "
            "train or sft, or a checkpoint in it"
        )
    run = RunDir.open(parent)
    return Trained(folder, run, run.step_of(folder) if is_checkpoint else None)


def check_target(out: Path) -> None:
    """Raise RunError where an export cannot be written: it gets a folder of its own."""
    if os.path.lexists(out):
        raise RunError(f"an export needs a new folder, {out} exists; choose another --out")


def export(
    name: str | Path,
    out: str | Path,
    *,
    dtype: Dtype | None = None,
    adapter: bool = False,
    called: str | None = None,
    evaluations: Sequence[Path] = (),
) -> Path:
    """The new folder `out` with a run's model as transformers, vLLM and others load it, and its card.

    An adapter is merged into its base in 32 bits, unless `adapter` asks for it by itself. `dtype` None keeps the numbers
    as they were trained. `called` is what the card names it by (default: the folder's name), `evaluations` are runs of
    `opengrit eval` whose figures go on the card. The folder appears whole or not at all. Raises ModelError, RunError.
    """
    out = Path(out)
    check_target(out)
    trained = trained_in(name)
    figures = figures_of(evaluations, model=str(trained.folder), run=trained.run)
    staged = out.with_name(f"{STAGED}{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staged, ignore_errors=True)  # left by a crash
        staged.mkdir()
        write = _write_adapter if adapter else _write_model
        written = write(trained, staged, dtype)
        (staged / CARD).unlink(missing_ok=True)
        text = card_of(
            trained.run,
            staged,
            frame=written.frame,
            step=trained.step,
            called=called or out.name,
            figures=figures,
            converted=written.converted,
        )
        (staged / CARD).write_text(text, encoding="utf-8")
        _require_no_places(staged)
        os.rename(staged, out)
    except OSError as error:
        raise RunError(
            f"an export's folder must be writable, {out} is not ({error.strerror or error}); check it and the free space"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return out


@dataclass(frozen=True, slots=True)
class _Written:
    """What a card needs to know of the files: the frame of the boxes, and what was done to the weights."""

    frame: str
    converted: str


def _write_model(trained: Trained, staged: Path, dtype: Dtype | None) -> _Written:
    import torch
    from peft import PeftModel

    from opengrit.models.loading import load

    is_adapter = names_adapter(str(trained.folder))
    # A sum in 16 bits would lose what the adapter adds.
    read_as = torch.float32 if is_adapter else dtype and getattr(torch, dtype)
    loaded = load(str(trained.folder), dtype=read_as or "auto", device="cpu")
    model: Any = loaded.model
    done = []
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)
        done.append("Its adapter was merged into the base in 32 bits.")
    if dtype is not None:
        model = model.to(getattr(torch, dtype))
        done.append(f"The weights are stored as {dtype}.")
    model.generation_config.stop_strings = [STOP]
    _save(replace(loaded, model=model), staged)
    return _Written(loaded.frame, " ".join(done))


def _save(loaded: Loaded, staged: Path) -> None:
    loaded.model.save_pretrained(staged)
    loaded.processor.save_pretrained(staged)
    save_origin(staged, loaded)


def _write_adapter(trained: Trained, staged: Path, dtype: Dtype | None) -> _Written:
    from opengrit.models.pretrained import load_config
    from opengrit.models.processors import load_processor

    folder = trained.folder
    if not names_adapter(str(folder)):
        raise ModelError(
            f"--adapter needs a run that trained an adapter, {folder} holds a whole model; leave out --adapter"
        )
    if dtype is not None:
        raise ModelError(
            f"an adapter keeps its own data type, got --dtype {dtype} with --adapter; leave one out"
        )
    base = base_of(str(folder))
    recorded = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if recorded not in packaged_names() and Path(base).is_dir():
        raise ModelError(
            f"an adapter for others needs a base on the hub, that of {folder} is the folder {base}; leave out --adapter "
            "to export the base too"
        )
    for file in (ADAPTER, ADAPTER_CONFIG):
        shutil.copyfile(folder / file, staged / file)
    own = folder / "opengrit.json"
    if own.is_file():
        shutil.copyfile(own, staged / own.name)
    load_processor(str(folder), base_path=base, name=str(folder)).save_pretrained(staged)
    frame = saved_frame(str(folder)) or load_config(base, str(folder)).model_type
    return _Written(frame, "")


def _require_no_places(staged: Path) -> None:
    """Raise RunError where a file that goes to others names a place of this machine."""
    for file in (staged / CARD, *(staged / name for name in _CONFIGS)):
        found = places_in(file.read_text(encoding="utf-8")) if file.is_file() else []
        if found:
            raise RunError(
                f"an export must not name a path of this machine, {file.name} has {found[0]!r}; remove it from that "
                "file in the run's model and export again"
            )
