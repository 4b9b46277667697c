"""Data: examples from GRIT's JSONL or from a packaged world, validated row by row."""

from __future__ import annotations

from pathlib import Path

from opengrit.data.grit import BadRows, Reading, load, read, write
from opengrit.data.rows import Problem, Severity
from opengrit.errors import DataError
from opengrit.types import Example

__all__ = ["BadRows", "Problem", "Reading", "Severity", "load", "load_examples", "read", "write"]

_STICKERS = "stickers/"


def load_examples(spec: str | Path, images: str | Path | None = None) -> list[Example]:
    """The examples a recipe or a command names, every picture of theirs known to exist.

    `spec` is a packaged set ("stickers/train20") or the path of a GRIT JSONL file; `images` is the folder its
    image paths start from (default: the folder the JSONL file lies in).

    Raises:
        DataError: the spec names nothing, rows are not what the format says (all listed), or pictures are missing.
    """
    name = str(spec)
    if name.endswith(".jsonl") or Path(spec).is_file():
        examples = load(spec, images=images)
        require_pictures(examples, spec)
        return examples
    if not name.startswith(_STICKERS):
        raise DataError(
            f"a data set is a packaged one (stickers/...) or a .jsonl file that exists, got {name!r}; "
            "check the name or give the file's path"
        )
    if images is not None:
        raise DataError(
            f"a packaged set brings its own pictures, got images={str(images)!r} with {name}; leave it out"
        )
    from opengrit.data import stickers  # draws its pictures on first use; a person's own data never needs it

    return stickers.examples(name)


def require_pictures(examples: list[Example], source: str | Path) -> None:
    """Nothing; raises DataError naming the first few pictures that are not there."""
    missing = sorted({e.image for e in examples if not Path(e.image).is_file()})
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"every row's picture must exist, {len(missing)} of {len({e.image for e in examples})} "
            f"named in {source} do not: {listed}; give the folder that holds them as images"
        )
