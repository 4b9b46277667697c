"""The formats by name, and the conversion of a run to one of them: `convert`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from opengrit.converters.coco import write_coco
from opengrit.converters.fiftyone import write_fiftyone
from opengrit.converters.label_studio import write_label_studio
from opengrit.converters.output import staged
from opengrit.converters.source import Source
from opengrit.converters.tabular import write_csv, write_jsonl, write_parquet
from opengrit.core.errors import RunError
from opengrit.runs.folder import RunDir

Format = Literal["coco", "fiftyone", "label-studio", "csv", "parquet", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
_WRITERS: dict[Format, Callable[[Source, Path], int]] = {
    "coco": write_coco,
    "fiftyone": write_fiftyone,
    "label-studio": write_label_studio,
    "csv": write_csv,
    "parquet": write_parquet,
    "jsonl": write_jsonl,
}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written: the file or folder, and how many of the run's records are in it."""

    path: Path
    num_records: int


def convert(run: str | Path, to: Format, out: str | Path, *, images: str | Path | None = None) -> Converted:
    """Write a run's records in a format of `FORMATS`: to a file (csv, parquet, jsonl) or to a new folder (the others).

    Pictures are named, and for coco linked; they are looked for in the folder `images` first, then where the run took them
    from. Raises RunError where the folder holds no run, a line of it cannot be read, something is at `out` already, or
    no record fits the format.
    """
    source = Source(RunDir.open(run), None if images is None else Path(images))
    target = Path(out)
    with staged(target) as place:
        count = _WRITERS[to](source, place)
        if not count:
            raise RunError(
                f"a conversion has at least one record, {run} has none that {to} can hold; evaluate or train first"
            )
    return Converted(target, count)
