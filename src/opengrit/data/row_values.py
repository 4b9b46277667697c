"""Values of a row as JSON gives them: a number or none, and what messages call them."""

from __future__ import annotations

import math
from typing import Any

from opengrit.core.escaping import shortened


def finite(value: Any) -> float | None:
    """The number as a float, or None for anything that is not a finite number (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def kind_of(value: Any) -> str:
    """What the value is, in JSON's words."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names[type(value)]


def shown(value: Any) -> str:
    """The value as Python writes it, shortened."""
    return shortened(repr(value))
