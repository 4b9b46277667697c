"""A run for scripts: its metrics, its records and its model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import RunError
from opengrit.runs.folder import FINAL, RunDir

if TYPE_CHECKING:
    import pandas as pd

    from opengrit.inference import Grounder


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of a training or an evaluation. Each access reads the folder again."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder. Raises RunError if there is none."""
        return cls(RunDir.open(path).path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def recipe(self) -> str:
        """What it did, every default written out, as YAML."""
        return self._folder.recipe

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row a step of a training; for an evaluation one row a data set, with n and 95 % intervals.

        None means not measured. A step that a resumed run repeated appears once, with its last values.
        """
        if self._is_evaluation:
            return self._measured()
        rows: dict[Any, dict[str, Any]] = {}
        for row in self._folder.metrics():
            kept = rows.setdefault(row.get("step"), {})
            kept |= row
        return [rows[step] for step in sorted(rows)]

    @property
    def records(self) -> pd.DataFrame:
        """One row a completion, with the columns of docs/records.md. Raises RunError if a line cannot be read."""
        from opengrit.converters import records

        return records(self.path)

    @property
    def model(self) -> Grounder:
        """The trained model, loaded now. Raises RunError if the run has trained none (yet)."""
        from opengrit.inference import Grounder

        if not (self.path / FINAL).is_dir():
            raise RunError(
                f"a run has a model when its training has ended, {self.path} has no {FINAL}/; finish the training, or "
                "load the evaluated model by its name"
            )
        return Grounder.load(str(self.path))

    @property
    def _folder(self) -> RunDir:
        return RunDir.open(self.path)

    @property
    def _is_evaluation(self) -> bool:
        from opengrit.reports.runs import recipe_of

        return "evaluate" in recipe_of(self._folder)

    def _measured(self) -> list[dict[str, Any]]:
        from opengrit.evaluation.measured import measured, to_json

        by_set: dict[str, list[Any]] = {}
        for record in self._folder.records():
            by_set.setdefault(record.example.dataset, []).append(record)
        return [_flat(to_json(measured(records, data=name))) for name, records in by_set.items()]


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Estimates as columns: the value under its name, then n and the ends of the interval."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, list):
            parts = ("", "_n", "_low", "_high")
            found |= {name + part: one for part, one in zip(parts, value, strict=True)}
        else:
            found[name] = value
    return found
