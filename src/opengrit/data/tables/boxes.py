"""Boxes of any convention: read from a cell, brought to corners in pixels, and suspected where nothing says which it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opengrit.core.boxes import Size
from opengrit.data.doubts import Doubt, WrittenBox, looks_like_thousandths, looks_like_widths
from opengrit.data.tables.rows import BoxStyle
from opengrit.data.tables.settings import Corners, Units

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_BETWEEN = re.compile(r"[\s,]+")
_CORNER_NAMES = (
    ("left", "top", "right", "bottom"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
)
_SIDE_NAMES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_LISTS = (
    "bbox",
    "boxes",
    "bboxes",
    "bbox_2d",
)  # of a cell that is an object: ms-swift's objects, a detection
_FEWEST = 8  # boxes all below 100 in both directions that are no accident
_WIDE = 300  # pixels: in such a picture numbers up to 100 say something
_WHOLE: dict[Units, float] = {"percent": 100.0, "unit": 1.0, "thousand": 1000.0}
_Numbers = tuple[float, float, float, float]


def boxes_in_cell(value: Any) -> Any:
    """The boxes of a cell as a list, each four numbers; what cannot be one stays as it is, for the row's own check.

    None where the cell says nothing about boxes. A cell is JSON or numbers with commas ("1, 2, 3, 4; 5, 6, 7, 8"), a
    list, an object with a list of boxes, or objects with named corners or sides.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        value = _from_text(text)
    if isinstance(value, dict):
        inner = next((value[key] for key in _LISTS if key in value), None)
        value = [value] if inner is None else inner
    if isinstance(value, list) and len(value) == 4 and all(_is_number(item) for item in value):
        return [value]
    return [_from_names(item) for item in value] if isinstance(value, list) else value


def _from_text(text: str) -> Any:
    if text[0] in "[{":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    found = []
    for part in re.split(r"[;|]", text):
        numbers = [word for word in _BETWEEN.split(part.strip()) if word]
        if not all(_NUMBER.fullmatch(word) for word in numbers):
            return text
        found += [[float(word) for word in numbers]] if numbers else []
    return found


def _from_names(box: Any) -> Any:
    if not isinstance(box, dict):
        return box
    inner = next((box[key] for key in _LISTS if key in box), None)
    if inner is not None:
        return inner
    named = {str(name).lower(): value for name, value in box.items()}
    for names in _CORNER_NAMES:
        if all(_is_number(named.get(name)) for name in names):
            return [named[name] for name in names]
    for names in _SIDE_NAMES:
        if all(_is_number(named.get(name)) for name in names):
            x, y, width, height = (named[name] for name in names)
            return Sides((x, y, width, height))
    return box


@dataclass(frozen=True, slots=True)
class Sides:
    """A box whose own names say that it is x, y, width, height."""

    numbers: _Numbers


def as_numbers(box: Any) -> _Numbers | None:
    """The four numbers of a box as written; None where it is none."""
    if isinstance(box, Sides):
        return box.numbers
    if isinstance(box, list) and len(box) == 4 and all(_is_number(item) for item in box):
        left, top, right, bottom = map(float, box)
        return left, top, right, bottom
    return None


def in_pixels(box: Any, style: BoxStyle, size: Size) -> Any:
    """The box as [left, top, right, bottom] in pixels, by its style (corners in pixels where it says nothing)."""
    numbers = as_numbers(box)
    if numbers is None:
        return box
    corners: Corners = "xywh" if isinstance(box, Sides) else style.corners or "xyxy"
    whole = _WHOLE.get(style.units or "pixels")
    across, down = (1.0, 1.0) if whole is None else (size.width / whole, size.height / whole)
    left, top, right, bottom = numbers
    if corners == "xywh":
        right, bottom = left + right, top + bottom
    return [left * across, top * down, right * across, bottom * down]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Options that would make sense of a table's boxes, and why."""

    style: BoxStyle
    why: str

    @property
    def option(self) -> str:
        """The options as a command takes them."""
        corners = f"--boxes {self.style.corners}" if self.style.corners else ""
        units = f"--box-units {self.style.units}" if self.style.units else ""
        return " ".join(option for option in (corners, units) if option)

    def doubt(self) -> Doubt:
        """The suspicion as a doubt about the whole file."""
        keys = ", ".join(
            f"{key}: {value}"
            for key, value in (("boxes", self.style.corners), ("box_units", self.style.units))
            if value
        )
        return Doubt(
            f"{self.why}; if so, give {self.option} ({keys} in a recipe), else name their convention",
            misleads=True,
        )


def suspected(boxes: Sequence[WrittenBox], said: BoxStyle) -> Suspicion | None:
    """What boxes seem to be where `said`, which stands for corners in pixels where it is silent, does not fit them.

    What is said is not doubted.
    """
    boxes = list({(box.numbers, box.size): box for box in boxes}.values())
    if not boxes:
        return None
    assumed = said.over(BoxStyle("xyxy", "pixels"))
    fits = sum(_fits(box, assumed) for box in boxes)
    fractions = all(max(map(abs, box.numbers)) <= 1 < min(box.size.width, box.size.height) for box in boxes)
    if fits < len(boxes) or (fractions and said.units is None):
        for style in _others(said, fractions=fractions):
            if all(_fits(box, style.over(assumed)) for box in boxes):
                return Suspicion(style, _why(style, boxes, fits))
        return None
    if said.units is None and (ranged := _by_range(boxes)) is not None:
        return Suspicion(ranged, _why(ranged, boxes, fits))
    if said.corners is None and assumed.units == "pixels" and looks_like_widths(boxes):
        return Suspicion(BoxStyle("xywh"), _why(BoxStyle("xywh"), boxes, fits))
    return None


def _others(said: BoxStyle, *, fractions: bool) -> Iterator[BoxStyle]:
    """Styles that are tried, the strictest first."""
    units: tuple[Units | None, ...] = ("unit",) if fractions else (None, "percent", "thousand")
    for unit in (None,) if said.units is not None else units:
        for corners in (None, "xywh") if said.corners is None else (None,):
            if unit is not None or corners is not None:
                yield BoxStyle("xywh" if corners else None, unit)


def _fits(box: WrittenBox, style: BoxStyle) -> bool:
    left, top, right, bottom = in_pixels(list(box.numbers), style, box.size)
    width, height = box.size.width, box.size.height
    over = max(-left, -top, right - width, bottom - height)
    return left < right and top < bottom and over <= max(1.0, 0.01 * max(width, height))


def _by_range(boxes: Sequence[WrittenBox]) -> BoxStyle | None:
    if looks_like_thousandths(boxes):
        return BoxStyle(units="thousand")
    telling = [box for box in boxes if min(box.size.width, box.size.height) >= _WIDE]
    if len(telling) >= _FEWEST and all(max(box.numbers) <= 100 for box in telling):
        return BoxStyle(units="percent")
    return None


def _why(style: BoxStyle, boxes: Sequence[WrittenBox], fits: int) -> str:
    said = {
        "unit": "fractions of the picture (0 to 1)",
        "percent": "per cent of the picture (0 to 100)",
        "thousand": "thousandths of the picture (0 to 1000)",
    }
    names = [said[style.units]] if style.units in said else []
    names += ["x, y, width, height (COCO)"] if style.corners == "xywh" else []
    first = boxes[0]
    shown = f"[{', '.join(f'{n:g}' for n in first.numbers)}]"
    return (
        f"boxes seem to be {' as '.join(names)} instead of corners in pixels: read as corners, only {fits} of "
        f"{len(boxes)} lie in their picture (the first is {shown} in row {first.line}, in a picture of "
        f"{first.size.width} x {first.size.height})"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
