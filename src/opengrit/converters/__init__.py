"""A run's records as other programs read them: COCO, FiftyOne, Label Studio, CSV, Parquet, JSONL, and pandas.

May import `evaluation` and the floors below it. Begin with `formats.py`; each format has a file and needs no package of the
program that reads it. Records are read one at a time.
"""

from opengrit.core.lazy import lazy_names

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
