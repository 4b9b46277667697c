"""Rows that were not written for GRIT: spreadsheets, data sets of the hub, other trainers' files, COCO annotations.

May import what `data` may. Begin with `convert.py`; a new kind of file is a function in `files.py`, a new shape of row one
in `shapes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.data.tables.convert import read_table
    from opengrit.data.tables.files import files_of, is_source, is_table, names_files
    from opengrit.data.tables.settings import Columns, TableSettings

__all__ = ["Columns", "TableSettings", "files_of", "is_source", "is_table", "names_files", "read_table"]

__getattr__ = lazy_names(
    __name__,
    {
        "read_table": "opengrit.data.tables.convert",
        **dict.fromkeys(("files_of", "is_source", "is_table", "names_files"), "opengrit.data.tables.files"),
        **dict.fromkeys(("Columns", "TableSettings"), "opengrit.data.tables.settings"),
    },
)
