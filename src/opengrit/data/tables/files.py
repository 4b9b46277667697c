"""Sources opened by libraries: pandas reads spreadsheets, json reads JSON, and `arrow.py` has what datasets reads."""

from __future__ import annotations

import glob
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from opengrit.core.errors import DataError, first_line
from opengrit.data.file_format import DuplicateKey, split_lines, unique_keys
from opengrit.data.missing import missing_file
from opengrit.data.rows import Problem
from opengrit.data.tables.arrow import HUB, from_hub, parquet, saved, saved_folder
from opengrit.data.tables.coco import coco_rows, is_coco
from opengrit.data.tables.rows import RawRow, Table
from opengrit.data.tables.settings import TableSettings

if TYPE_CHECKING:
    import pandas

ROWS = ".jsonl"  # GRIT's own, and other trainers'
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+){0,2}")
_TOO_LONG = "\0too many values"  # in the first column of a row with more values than names
_DECIMAL = re.compile(r"-?\d+\.0+")
_FRACTION = re.compile(r"-?\d+\.\d+")


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
            f"a folder or a pattern of data files has at least one of {', '.join(known)}, {name} has none; name the files, or "
            "name a folder that `opengrit data get` filled"
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
            f"a source is a file ({known}), a folder that datasets saved, or a hub data set (owner/name:split), got {spec}; "
            "save it as one of these"
        )
    if not path.is_file():
        raise missing_file(spec)
    return reader(path, settings)


# -- spreadsheets ----------------------------------------------------------------------------------------------------


def _separated(path: Path, settings: TableSettings) -> Table:
    import pandas

    text = _text(path)
    header = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    try:
        frame = pandas.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,  # "NA", "None" and "null" are answers
            skip_blank_lines=False,  # row numbers stay those of a spreadsheet
            engine="python",  # the one that hands over rows of too many values
            on_bad_lines=lambda values: [_TOO_LONG],
        )
    except (ValueError, pandas.errors.ParserError) as error:
        raise DataError(
            f"a table has a header and rows of as many values, {path} cannot be read ({first_line(error)}); save it again as CSV"
        ) from error
    if not isinstance(frame.index, pandas.RangeIndex):  # every row has more values than the header has names
        if frame.index.nlevels > 1 or not (frame.iloc[:, -1].fillna("") == "").all():
            raise DataError(
                f"a table's rows have as many values as its header has names, those of {path} have more; put values that hold "
                f"a {separator!r} in quotes"
            )
        names = list(frame.columns)
        frame = frame.reset_index().iloc[:, :-1].set_axis(names, axis=1)
    return _from_frame(str(path), frame, separator)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"a source must be readable, {path} is not ({error.strerror}); check it") from error
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"a table is UTF-8, byte {error.start} of {path} is not; save it as CSV UTF-8 (in Excel a choice of its own)"
        ) from error


def _excel(path: Path, settings: TableSettings) -> Table:
    import zipfile

    import pandas

    try:
        sheets = pandas.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False, engine="openpyxl")
    except ImportError as error:
        raise DataError(
            f"openpyxl reads .xlsx files, it is not installed ({path}); run pip install 'opengrit[xlsx]', or save it as CSV"
        ) from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"an .xlsx file is an Excel workbook, {path} cannot be read ({first_line(error)}); save it again"
        ) from error
    filled = [name for name, frame in sheets.items() if len(frame)]
    if not filled:
        raise DataError(f"a table has a header and at least one row, {path} has none; check its first sheet")
    table = _from_frame(str(path), sheets[filled[0]], None)
    if len(filled) == 1:
        return table
    note = (
        f"{path} has {len(filled)} sheets, the first ({filled[0]}) is read; save another as a file of its own"
    )
    return Table(table.file, table.rows, table.problems, (*table.notes, note))


def _from_frame(file: str, frame: pandas.DataFrame, separator: str | None) -> Table:
    """The rows of a frame of strings: blank ones and blank columns left out, 2.0 written as 2 where nothing has a fraction."""
    notes: list[str] = []
    frame.columns = [str(name).strip() for name in frame.columns]
    columns = {}
    for place, name in enumerate(frame.columns):
        values = [value.strip() if isinstance(value, str) else "" for value in frame.iloc[:, place]]
        decimals = [value for value in values if _FRACTION.fullmatch(value)]
        if decimals and all(_DECIMAL.fullmatch(value) for value in decimals):
            notes.append(
                f"whole numbers written like {decimals[0]} in the column {name} are read without the point"
            )
            values = [value.partition(".")[0] if _DECIMAL.fullmatch(value) else value for value in values]
        if any(values):
            columns[name] = values
    rows, problems, blank = [], [], 0
    for index in range(len(frame)):
        row = {name: column[index] for name, column in columns.items()}
        number = index + 2
        if _TOO_LONG in row.values():
            how = f"put those that hold a {separator!r} in quotes"
            problems.append(
                Problem(
                    file,
                    number,
                    "",
                    f"a row has a value for each name of the header, this one has more; {how}",
                )
            )
        elif any(row.values()):
            rows.append(RawRow(number, row))
        else:
            blank += 1
    if blank:
        notes.append(f"{blank} blank rows are left out")
    return Table(file, rows, tuple(problems), tuple(notes))


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
                    str(path), number, "", f"a row is one JSON object a line, this is not ({error}); fix it"
                )
            )
            continue
        if isinstance(values, dict):
            rows.append(RawRow(number, values))
        else:
            problems.append(
                Problem(str(path), number, "", "a row is a JSON object, this line is none; write {...}")
            )
    return Table(str(path), rows, tuple(problems))


def _json(path: Path, settings: TableSettings) -> Table:
    text = _text(path)
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
    ".csv": _separated,
    ".tsv": _separated,
    ".xlsx": _excel,
    ".parquet": parquet,
    ".json": _json,
}
