"""Spreadsheets as people keep them: a title above the header, blank lines, any separator, names that are missing or twice."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from opengrit.core.errors import DataError, first_line
from opengrit.data.problems import Problem
from opengrit.data.tables.rows import RawRow, Table
from opengrit.data.tables.settings import TableSettings

_SEPARATORS = ",;\t|"
_SAID = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # Excel's own first line, which it does not show
_LOOKED_AT = 100  # rows that the separator is chosen by
_LEAST_NAMES = 3  # a picture, a question and an answer: a row of fewer above one of more is a title
_DECIMAL = re.compile(r"-?\d+\.0+")
_FRACTION = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The cells of a table, row by row as a spreadsheet shows them. `separator` is None where cells cannot run over."""

    file: str
    cells: list[list[str]]
    separator: str | None = None
    notes: tuple[str, ...] = ()


def separated(path: Path, settings: TableSettings) -> Table:
    """A file of values with separators (CSV, TSV). Raises DataError where it is none."""
    text = decoded(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a cell may hold a picture
    said = _SAID.match(text)
    if said:
        text = text[said.end() :]
    if path.suffix.lower() == ".tsv":
        separator = "\t"
    else:
        separator = said[1] if said else max(_SEPARATORS, key=lambda candidate: _fit(text, candidate))
    return _table(_Sheet(str(path), _cells(text, separator, path), separator))


def decoded(path: Path) -> str:
    """A file's text. Raises DataError where it cannot be read or is no UTF-8 (or UTF-16 that says so)."""
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


def _lines(text: str) -> io.StringIO:
    return io.StringIO(text, newline=None)  # "\r" ends a line as well


def _fit(text: str, separator: str) -> tuple[int, int]:
    """How many of the first rows have the same number of values, and that number."""
    widths = Counter(
        len(row)
        for row in islice(csv.reader(_lines(text), delimiter=separator, skipinitialspace=True), _LOOKED_AT)
        if len(row) > 1
    )
    return max(((rows, width) for width, rows in widths.items()), default=(0, 0))


def _cells(text: str, separator: str, path: Path) -> list[list[str]]:
    records = csv.reader(_lines(text), delimiter=separator, skipinitialspace=True)
    cells, last, end = [], 0, 0
    for row in records:
        cells.append(row)
        last, end = end, records.line_num
    if end - last > 1:  # a value with line breaks at the end, or quotes that never end
        tail = islice(_lines(text), last, None)
        try:
            list(csv.reader(tail, delimiter=separator, skipinitialspace=True, strict=True))
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    f"a value's quotes must close, those in row {len(cells)} of {path} do not; write \", or leave them "
                    "out"
                ) from error
    return cells


def excel(path: Path, settings: TableSettings) -> Table:
    """The first sheet of a workbook that can be a table. Raises DataError where the file is no workbook, or holds nothing."""
    import zipfile

    import pandas

    try:
        sheets = pandas.read_excel(
            path, sheet_name=None, header=None, dtype=str, keep_default_na=False, engine="openpyxl"
        )
    except ImportError as error:
        raise DataError(
            f"reading .xlsx files needs openpyxl, which is not installed ({path}); run pip install 'opengrit[xlsx]', or "
            "save it as CSV"
        ) from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"an .xlsx file is an Excel workbook, {path} cannot be read ({first_line(error)}); save it again in the program that "
            "made it, as .xlsx or .csv"
        ) from error
    cells = {
        name: [[value if isinstance(value, str) else "" for value in row] for row in frame.values.tolist()]
        for name, frame in sheets.items()
    }
    filled = [name for name, rows in cells.items() if any(map(_filled, rows))]
    if not filled:
        raise DataError(f"a table has a header and at least one row, {path} has none; check its first sheet")
    wide = [name for name in filled if max(map(_filled, cells[name])) >= _LEAST_NAMES]
    chosen = (wide or filled)[0]
    if len(filled) == 1:
        return _table(_Sheet(str(path), cells[chosen]))
    note = f"{path} has {len(filled)} sheets, {chosen} is read; save another as a file of its own"
    return _table(_Sheet(str(path), cells[chosen], notes=(note,)))


def _filled(row: Sequence[str]) -> int:
    return sum(map(bool, map(str.strip, row)))


def _table(sheet: _Sheet) -> Table:
    """The rows below the header: blank ones and blank columns left out, 2.0 written as 2 where nothing has a fraction."""
    notes = list(sheet.notes)
    rows = [[cell.strip() for cell in row] for row in sheet.cells]
    least = min(_LEAST_NAMES, max(map(_filled, rows), default=0))
    top = next((place for place, row in enumerate(rows) if _filled(row) >= max(1, least)), len(rows))
    if any(map(_filled, rows[:top])):
        notes.append(f"rows above the header (row {top + 1}) are skipped")
    below = rows[top + 1 :]
    header = rows[top] if top < len(rows) else []
    width = max(map(len, rows), default=0) if sheet.separator is None else len(header)
    names, twice = _names(header, width)
    columns = {}
    for place, name in enumerate(names):
        values, note = _without_points([row[place] if place < len(row) else "" for row in below], name)
        if any(values):
            columns[name] = values
            notes += note
            notes += [twice[name]] if name in twice else []
    found, problems, blank = [], [], 0
    for place, cells in enumerate(below):
        number = top + place + 2
        if any(cells[width:]):
            how = f"put those that hold a {sheet.separator!r} in quotes"
            message = f"a row has one value for each header name, this one has more; {how}"
            problems.append(Problem(sheet.file, number, "", message))
        elif any(cells):
            found.append(RawRow(number, {name: column[place] for name, column in columns.items()}))
        else:
            blank += 1
    if blank:
        notes.append(f"{blank} blank rows are skipped")
    return Table(sheet.file, found, tuple(problems), tuple(notes))


def _names(header: Sequence[str], width: int) -> tuple[list[str], dict[str, str]]:
    """A name for each column, all different, and what is to be said of those that had one of another column."""
    names: list[str] = []
    twice = {}
    for place in range(width):
        name = header[place] if place < len(header) else ""
        here = f"column {place + 1}"
        if name in names:
            twice[f"{name} ({here})"] = f"two columns are called {name}: {here} is read as {name} ({here})"
            name = f"{name} ({here})"
        names.append(name or here)
    return names, twice


def _without_points(values: list[str], name: str) -> tuple[list[str], list[str]]:
    """A column in which whole numbers lose the point that a program gave them, and what is to be said of it."""
    decimals = [value for value in values if _FRACTION.fullmatch(value)]
    if not decimals or not all(map(_DECIMAL.fullmatch, decimals)):
        return values, []
    note = f"whole numbers written like {decimals[0]} in the column {name} are read as integers"
    return [value.partition(".")[0] if _DECIMAL.fullmatch(value) else value for value in values], [note]
