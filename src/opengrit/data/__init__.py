"""Questions about pictures: rows, sources, checks, benchmarks by name, and the packaged world.

May import `rewards` and the floors below it. Begin with `sources.py`; one line of a file is `rows.py`.
"""

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
