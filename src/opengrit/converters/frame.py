"""A run's records as a pandas DataFrame: `opengrit.records`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.converters.rows import COLUMNS, flat
from opengrit.converters.source import Source
from opengrit.runs.folder import RunDir

if TYPE_CHECKING:
    import pandas as pd


def records(run: str | Path | RunDir, *, images: str | Path | None = None) -> pd.DataFrame:
    """A run's records, one row each in order of writing, with the columns that docs/records.md lists.

    The index counts rows. Boxes are lists of [left, top, right, bottom] in pixels of the picture; each part of the reward
    is a column `parts/NAME`. A record that a resumed run wrote again is there once. Pictures' paths are looked for in the
    folder `images` first, then where the run took them from. Raises RunError where the folder holds no run or a line of
    it cannot be read.
    """
    import pandas as pd

    folder = run if isinstance(run, RunDir) else RunDir.open(run)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for count, record in enumerate(Source(folder, None if images is None else Path(images)).records()):
        row = flat(record)
        for name in row.keys() - columns.keys():
            columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    parts = sorted(columns.keys() - COLUMNS.keys())
    return pd.DataFrame({name: columns[name] for name in (*COLUMNS, *parts)})
