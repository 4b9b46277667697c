"""Checkpoint retention: which checkpoints of a run stay, and how the others are removed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrit.runs.folder import STAGED, RunDir
from opengrit.training.checkpoint import sync
from opengrit.training.checkpoint_sidecar import looks_whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointRetention:
    """Keeps the `newest` checkpoints (None: all), and the one with the highest `best` (None: only the newest)."""

    newest: int | None = None
    best: str | None = None  # a quantity of the in-training evaluations, such as "accuracy"

    def apply(self, run: RunDir, *, evaluations: Sequence[str]) -> None:
        """Remove the checkpoints that do not stay; `evaluations` name those whose mean decides which is best."""
        if self.newest is not None:
            names = [] if self.best is None else [f"eval/{name}/{self.best}" for name in evaluations]
            prune_checkpoints(run, keep=self.newest, best=_means(run, names))


def prune_checkpoints(run: RunDir, *, keep: int, best: Mapping[int, float] | None = None) -> list[Path]:
    """Remove the run's checkpoints but for the newest `keep` and, of those measured (`best`, by step), the best one.

    Only checkpoints that this run wrote are counted and removed; one that is damaged, or of another run, is neither. A
    checkpoint is renamed before its files are removed, so that there is never half of one. Returns those removed.
    """
    own = [path for path in run.checkpoints() if looks_whole(path, run=run.id)]
    kept = set(own[-keep:])
    measured = [path for path in own if run.step_of(path) in (best or {})]
    if best and measured:
        kept.add(max(measured, key=lambda path: (best[run.step_of(path)], run.step_of(path))))
    removed = [path for path in own if path not in kept]
    for path in removed:
        renamed = path.with_name(f"{STAGED}removed-{path.name}")
        shutil.rmtree(renamed, ignore_errors=True)  # left by a crash
        os.rename(path, renamed)
        sync(path.parent)
        shutil.rmtree(renamed, ignore_errors=True)
        if renamed.exists():  # a file in it is held open, on a network mount
            _log.warning("%s could not be removed; it is not used and may be deleted", renamed)
    return removed


def _means(run: RunDir, names: Sequence[str]) -> dict[int, float]:
    """By step: the mean over metrics of these names, where all are there; the newest measurement of a step counts."""
    if not names:
        return {}
    found: dict[int, dict[str, float]] = {}
    for row in run.metrics():
        for name in names:
            if row.get(name) is not None:
                found.setdefault(row["step"], {})[name] = row[name]
    return {step: sum(v.values()) / len(v) for step, v in found.items() if len(v) == len(names)}
