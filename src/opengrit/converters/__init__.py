"""A run's records as other programs read them: COCO, FiftyOne, Label Studio, CSV, Parquet, JSONL, and pandas.

May import `evaluation` and the floors below it. Begin with `formats.py`; each format has a file and needs no package of the
program that reads it. Records are read one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.converters.formats import FORMATS, Converted, convert
    from opengrit.converters.frame import records

__all__ = ["FORMATS", "Converted", "convert", "records"]

__getattr__ = lazy_names(
    __name__,
    {
        "FORMATS": "opengrit.converters.formats",
        "Converted": "opengrit.converters.formats",
        "convert": "opengrit.converters.formats",
        "records": "opengrit.converters.frame",
    },
)
