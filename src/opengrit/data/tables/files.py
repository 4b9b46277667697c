"""Sources by their names, each opened by its reader: `spreadsheets.py`, `arrow.py` (what datasets reads), and JSON here."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from opengrit.core.errors import DataError
from opengrit.data.file_format import DuplicateKey, split_lines, unique_keys
from opengrit.data.missing import missing_file
from opengrit.data.problems import Problem
from opengrit.data.tables.arrow import HUB, from_hub, parquet, saved, saved_folder
from opengrit.data.tables.coco import coco_rows, is_coco
from opengrit.data.tables.rows import RawRow, Table
from opengrit.data.tables.settings import TableSettings
from opengrit.data.tables.spreadsheets import decoded, excel, separated

ROWS = ".jsonl"  # GRIT's own, and other trainers'
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+){0,2}")


def is_table(spec: str | Path) -> bool:
    """Whether a source is one of those read here, by its name: a spreadsheet, a hub data set, a saved folder, JSON."""
    name = str(spec)
    return name.startswith(HUB) or Path(name).suffix.lower() in _READERS or saved_folder(name) is not None


def names_files(spec: str) -> bool:
    """Whether a name alone says that it is one of files or of a hub data set: by its ending, its start, a pattern's signs."""
    return spec.startswith(HUB) or Path(spec).suffix.lower() in (*_READERS, ROWS) or glob.has_magic(spec)


def is_source(spec: str | Path) -> bool:
    """Whether a name is that of files, whatever they hold: as `names_files`, or because something of that name is there."""
    name = str(spec)
    return names_files(name) or saved_folder(name) is not None or os.path.exists(name)


def files_of(spec: str | Path) -> list[str]:
    """The files of a folder or a pattern, sorted; [spec] itself for anything else.

    Raises DataError where a pattern or a folder has none that can be read.
    """
    name = str(spec)
    if name.startswith(HUB) or os.path.isfile(name) or saved_folder(name) is not None:
        return [name]
    known = (*_READERS, ROWS)
    if os.path.isdir(name):
        found = [os.path.join(name, file) for file in os.listdir(name)]
    elif glob.has_magic(name):
        found = glob.glob(name, recursive=True)
    else:
        return [name]
    files = sorted(file for file in found if Path(file).suffix.lower() in known and os.path.isfile(file))
    if not files:
        raise DataError(
            f"a folder or pattern of data files needs at least one of {', '.join(known)}, {name} has none; name the "
            "files, or name a folder that `opengrit data get` filled"
        )
    return files


def as_source(spec: str) -> str:
    """The source that a person names: a hub data set may be named without "hub:" where no file is of that name."""
    path = spec.partition(":")[0]
    known = Path(spec).suffix.lower() in (*_READERS, ROWS)
    if _HUB_NAME.fullmatch(spec) and not os.path.exists(path) and not known:
        return HUB + spec
    return spec


def open_table(spec: str, settings: TableSettings) -> Table:
    """The rows of one source. Raises DataError where it cannot be read at all."""
    if spec.startswith(HUB):
        return from_hub(spec)
    if saved_folder(spec) is not None:
        return saved(spec)
    path = Path(spec)
    reader = _lines if path.suffix.lower() == ROWS else _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join((*_READERS, ROWS))
        raise DataError(
            f"a source is a file ({known}), a folder saved by datasets, or a hub data set (owner/name:split), got "
            f"{spec}; save it as one of these"
        )
    if not path.is_file():
        raise missing_file(spec)
    return reader(path, settings)


# -- JSON ------------------------------------------------------------------------------------------------------------


def _lines(path: Path, settings: TableSettings) -> Table:
    rows, problems = [], []
    for number, line in split_lines(path):
        try:
            values = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys)
        except DuplicateKey as error:
            problems.append(
                Problem(str(path), number, error.key, "a field occurs twice in this row; keep the right one")
            )
            continue
        except (ValueError, RecursionError) as error:
            problems.append(
                Problem(
                    str(path),
                    number,
                    "",
                    f"a row is one JSON object on one line, this is not ({error}); fix it",
                )
            )
            continue
        if isinstance(values, dict):
            rows.append(RawRow(number, values))
        else:
            problems.append(
                Problem(str(path), number, "", "a row is a JSON object, this line is not; write {...}")
            )
    return Table(str(path), rows, tuple(problems))


def _json(path: Path, settings: TableSettings) -> Table:
    text = decoded(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and text.partition("\n")[0].rstrip().endswith(
            "}"
        ):  # JSON lines under another name
            return _lines(path, settings)
        raise DataError(
            f"a .json file is one JSON document, {path} is not ({error}); fix it, or name it .jsonl"
        ) from error
    if is_coco(found):
        return coco_rows(str(path), found, settings.coco)
    if isinstance(found, dict):
        lists = [
            value
            for value in found.values()
            if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        found = lists[0] if len(lists) == 1 else [found]
    rows = [RawRow(number, row) for number, row in enumerate(found, start=1) if isinstance(row, dict)]
    if not isinstance(found, list) or len(rows) < len(found):
        raise DataError(
            f"a .json file holds a list of objects, or COCO annotations, {path} does not; write [{{...}}, ...]"
        )
    return Table(str(path), rows)


_READERS: dict[str, Callable[[Path, TableSettings], Table]] = {
    ".csv": separated,
    ".tsv": separated,
    ".xlsx": excel,
    ".parquet": parquet,
    ".json": _json,
}
