"""CSV, Parquet and JSONL: one row a record, with the columns of `rows.py`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.converters.rows import COLUMNS, PARTS, flat
from opengrit.converters.source import Source
from opengrit.core.escaping import without_surrogates

if TYPE_CHECKING:
    import pyarrow

_ROWS_AT_ONCE = 4096  # of a Parquet row group; bounds what is held in memory
_TEXT: tuple[str, ...] = (
    "id",
    "dataset",
    "example",
    "split",
    "image",
    "question",
    "expected",
    "answer",
    "verdict",
    "finish",
)
_TEXT += ("text", "strategy", "failure", "unjudged")
_WHOLE = ("step", "sample", "width", "height", "tokens")


def write_csv(source: Source, place: Path) -> int:
    """Comma-separated, UTF-8, a header first; boxes and labels are JSON in their cell. The number of rows."""
    names = [*COLUMNS, *_parts(source)]
    count = 0
    with place.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        for row in _rows(source):
            lists = {name: json.dumps(value) for name, value in row.items() if isinstance(value, list)}
            writer.writerow(row | lists)
            count += 1
    return count


def write_jsonl(source: Source, place: Path) -> int:
    """One JSON object a line. The number of rows."""
    count = 0
    with place.open("w", encoding="utf-8", newline="\n") as stream:
        for row in _rows(source):
            stream.write(json.dumps(row, allow_nan=False) + "\n")
            count += 1
    return count


def write_parquet(source: Source, place: Path) -> int:
    """Boxes are lists of lists of numbers, the parts of the reward numbers. The number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(_parts(source))
    count, pending = 0, []
    with pq.ParquetWriter(place, schema) as writer:
        for row in _rows(source):
            pending.append(row)
            count += 1
            if len(pending) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(pending, schema=schema))
                pending = []
        writer.write_table(pa.Table.from_pylist(pending, schema=schema))
    return count


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    for record in source.records():
        row = flat(record)
        for name, value in row.items():
            if isinstance(value, str):
                row[name] = without_surrogates(value)
        row["labels"] = [None if label is None else without_surrogates(label) for label in row["labels"]]
        yield row


def _parts(source: Source) -> list[str]:
    """The columns of the reward's parts; a table has the same ones in every row, and the first may have failed."""
    return sorted({f"{PARTS}{name}" for record in source.records() for name in record.score.parts})


def _schema(parts: list[str]) -> pyarrow.Schema:
    import pyarrow as pa

    kinds = {name: pa.float64() for name in (*COLUMNS, *parts)}
    kinds |= dict.fromkeys(_TEXT, pa.string()) | dict.fromkeys(_WHOLE, pa.int64())
    boxes = pa.list_(pa.list_(pa.float64()))
    kinds |= {"boxes": boxes, "expected_boxes": boxes, "labels": pa.list_(pa.string())}
    return pa.schema([(name, kinds[name]) for name in (*COLUMNS, *parts)])
