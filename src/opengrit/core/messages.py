"""What messages say alike everywhere: the first few of many things, and the known name that a misspelt one is nearest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from opengrit.core.escaping import shortened


def first_few(
    things: Iterable[object], *, most: int = 3, between: str = ", ", longest: int | None = None
) -> str:
    """The first `most` of some things in one line, each cut to `longest` characters, and how many more there are."""
    texts = [str(thing) if longest is None else shortened(str(thing), longest) for thing in things]
    named = between.join(texts[:most])
    return f"{named} and {len(texts) - most} more" if len(texts) > most else named


def first_lines(head: str, things: Sequence[object], *, most: int, rest: str) -> str:
    """A message of several lines: its head, the first `most` things, and how many more there are and where to see them."""
    lines = [f"  {thing}" for thing in things[:most]]
    more = [f"  and {len(things) - most} more; {rest}"] if len(things) > most else []
    return "\n".join([head, *lines, *more])


def nearest(written: str, known: Iterable[str], *, alike: float = 0.6) -> str | None:
    """The known name that was probably meant; None where none is `alike` enough (0 to 1, difflib's ratio)."""
    found = difflib.get_close_matches(written, list(known), n=1, cutoff=alike)
    return found[0] if found else None
