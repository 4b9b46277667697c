"""Folders -> what a report shows: runs, the seeds their models were trained with, and runs of probes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from opengrit.core.errors import RunError
from opengrit.core.messages import first_few
from opengrit.reports.probe_results import ProbeResults, holds_probes, read_probe_results
from opengrit.reports.runs import RunView, read_runs, recipe_of
from opengrit.reports.seeds import TRAINED_BY, TRAINING_SEED
from opengrit.runs.folder import RECIPE, RunDir
from opengrit.runs.origin import read_origin

_NAMED = 4  # runs of a table that an error names
_SEEDED = ("train", "sft")  # the sections of a training's recipe that hold its seed


def load_runs(
    paths: Sequence[str | Path], *, images: str | Path | None = None, quiet: bool = True
) -> list[RunView | ProbeResults]:
    """The runs in these folders, evaluations and trainings as they are named, then the runs of probes.

    Pictures are looked for in `images` first, then where each run took them from. A progress bar runs unless `quiet`.

    Raises RunError where a folder is no run or a table of runs, a line of it cannot be read, or a folder is named twice.
    """
    images = None if images is None else Path(images)
    for path in paths:
        _refuse_table(RunDir.open(path))
    probes = [path for path in paths if holds_probes(path)]
    others = [path for path in paths if path not in probes]
    found: list[RunView | ProbeResults] = [
        _with_training(v, RunDir.open(p))
        for v, p in zip(read_runs(others, images=images, quiet=quiet), others, strict=True)
    ]
    return found + [
        read_probe_results(RunDir.open(path), Path(path).resolve().name, images=images) for path in probes
    ]


def _refuse_table(run: RunDir) -> None:
    if "ways" not in recipe_of(run):
        return
    inside = sorted(str(file.parent) for file in run.path.glob(f"runs/*/*/*/*/{RECIPE}"))
    which = f" ({first_few(inside, most=_NAMED)})" if inside else ""
    raise RunError(
        f"a report shows runs, {run.path} is a table of runs; see {run.path / 'table.html'}, or name runs inside "
        f"it{which}"
    )


def _with_training(view: RunView, run: RunDir) -> RunView:
    """The view with two more facts where its model comes from a training run: that run's seed and its other settings."""
    recipe = recipe_of(run).get("evaluate")
    model = recipe.get("model") if isinstance(recipe, Mapping) else None
    name = model.get("name") if isinstance(model, Mapping) else None
    origin = read_origin(run.path)
    if origin is not None and origin.model is not None:
        name = origin.model.path  # not the name: it would be another folder from another working folder
    training = _training_of(name) if isinstance(name, str) else None
    if training is None:
        return view
    seeds = [
        str(part["seed"])
        for key in _SEEDED
        if isinstance(part := training.get(key), Mapping) and "seed" in part
    ]
    bare = {k: _without_seed(v) if k in _SEEDED else v for k, v in training.items()}
    digest = hashlib.sha256(yaml.safe_dump(bare).encode("utf-8")).hexdigest()[:12]
    return replace(
        view,
        facts=(
            *view.facts,
            (TRAINING_SEED, ", ".join(seeds) or "none"),
            (TRAINED_BY, f"recipe {digest} without its seed"),
        ),
    )


def _training_of(model: str) -> Mapping[str, Any] | None:
    """The recipe of the training that a model's folder belongs to: in it, or in one of the two above it."""
    place = Path(model)
    for folder in (place, place.parent, place.parent.parent):
        if folder != Path() and os.path.isfile(folder / RECIPE):
            return recipe_of(RunDir(folder))
    return None


def _without_seed(section: Any) -> Any:
    if not isinstance(section, Mapping):
        return section
    return {key: value for key, value in section.items() if key != "seed"}
