"""Questions about pictures: rows, sources, checks, benchmarks by name, and the packaged world.

May import `rewards` and the floors below it. Begin with `sources.py`; one line of a file is `rows.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.data.grit import BadRows, ParsedFile, load, read, write
    from opengrit.data.problems import Problem, Severity
    from opengrit.data.sources import load_examples, require_readable

__all__ = [
    "BadRows",
    "ParsedFile",
    "Problem",
    "Severity",
    "load",
    "load_examples",
    "read",
    "require_readable",
    "write",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("BadRows", "ParsedFile", "load", "read", "write"), "opengrit.data.grit"),
        **dict.fromkeys(("Problem", "Severity"), "opengrit.data.problems"),
        **dict.fromkeys(("load_examples", "require_readable"), "opengrit.data.sources"),
    },
)
