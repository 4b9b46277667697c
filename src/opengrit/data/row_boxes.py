"""The boxes of a row: corners in pixels of its picture, in order, and clipped where they overhang a little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from opengrit.core.boxes import Box, Size
from opengrit.data.doubts import WrittenBox, fits_as_width
from opengrit.data.row_values import finite, kind_of, shown

# Annotators number pixels from 0 or from 1 and include the last one or not, so one pixel of overhang is custom.
CUSTOMARY_OVERHANG_PIXELS = 1.0
# A box that overhangs by more than this share of the picture's side is in another frame, or another picture's.
LARGEST_OVERHANG_SHARE = 0.05

_Corners = tuple[float, float, float, float]


class Notes(Protocol):
    """Takes what is wrong with a field of the row."""

    def error(self, name: str, message: str) -> None: ...

    def warn(self, name: str, message: str) -> None: ...


def read_boxes(value: Any, size: Size | None, notes: Notes) -> tuple[Box, ...]:
    """The usable boxes of a row's `bboxs`, in the unit square; none of them where the picture's size is not known."""
    if not isinstance(value, list):
        notes.error(
            "bboxs",
            f"must be a list of boxes, got {kind_of(value)}; write [[left, top, right, bottom], ...] or []",
        )
        return ()
    if _four_numbers(value) is not None:
        notes.error("bboxs", f"is a list of boxes, got one box {shown(value)}; write [{shown(value)}]")
        return ()
    boxes = (_box(f"bboxs[{index}]", item, size, notes) for index, item in enumerate(value))
    return tuple(box for box in boxes if box is not None)


def written_boxes(value: Any, size: Size | None, *, line: int) -> Iterator[WrittenBox]:
    """The boxes of four numbers in a row's `bboxs` as they are written, usable or not."""
    for item in value if isinstance(value, list) and size is not None else ():
        if size is not None and (numbers := _four_numbers(item)) is not None:
            yield WrittenBox(line, numbers, size)


def _four_numbers(value: Any) -> _Corners | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    left, top, right, bottom = map(finite, value)
    if left is None or top is None or right is None or bottom is None:
        return None
    return left, top, right, bottom


def _box(name: str, value: Any, size: Size | None, notes: Notes) -> Box | None:
    """The box in the unit square, clipped to the picture; None with a problem noted where it cannot be one."""
    if not isinstance(value, list) or len(value) != 4:
        notes.error(name, f"a box is [left, top, right, bottom], got {shown(value)}; write four numbers")
        return None
    corners = _four_numbers(value)
    if corners is None:
        notes.error(
            name, f"a box holds four finite numbers, got {shown(value)}; write pixels, without quotes"
        )
        return None
    left, top, right, bottom = corners
    if left >= right or top >= bottom:
        notes.error(
            name,
            f"a box has left < right and top < bottom, got {shown(value)}; "
            f"put the corners in order{_if_width(size, corners)}",
        )
        return None
    if size is None:
        return None
    if max(abs(left), abs(top), right, bottom) <= 1 < min(size.width, size.height):
        notes.error(
            name,
            f"a box is in pixels of the picture, {shown(value)} are fractions; multiply by width and height",
        )
        return None
    return _clipped(name, corners, size, notes)


def _clipped(name: str, corners: _Corners, size: Size, notes: Notes) -> Box | None:
    left, top, right, bottom = corners
    unit = (
        max(left, 0.0) / size.width,
        max(top, 0.0) / size.height,
        min(right, float(size.width)) / size.width,
        min(bottom, float(size.height)) / size.height,
    )
    across = max(-left, right - size.width, 0.0)
    down = max(-top, bottom - size.height, 0.0)
    has_area = unit[0] < unit[2] and unit[1] < unit[3]
    if has_area and max(across, down) <= CUSTOMARY_OVERHANG_PIXELS:
        return Box(*unit)
    rule = (
        f"a box must lie in its picture of {size.width} x {size.height} pixels, "
        f"[{', '.join(f'{c:g}' for c in corners)}]"
    )
    if not has_area:
        notes.error(name, f"{rule} lies outside; correct the box, or width and height")
        return None
    if across > _largest_overhang(size.width) or down > _largest_overhang(size.height):
        notes.error(
            name,
            f"{rule} leaves it by {max(across, down):g} pixels; correct the box, or width and height"
            f"{_if_thousandths(corners)}",
        )
        return None
    notes.warn(name, f"{rule} leaves it by {max(across, down):g} pixels and is clipped; correct the box")
    return Box(*unit)


def _largest_overhang(side: int) -> float:
    """In pixels; the customary pixel is allowed in small pictures too, where it is more than the share."""
    return max(LARGEST_OVERHANG_SHARE * side, CUSTOMARY_OVERHANG_PIXELS)


def _if_width(size: Size | None, numbers: _Corners) -> str:
    if size is None or not fits_as_width(numbers, size):
        return ""
    left, top, width, height = numbers
    x, y, w, h = (f"{n:g}" for n in (left, top, left + width, top + height))
    return f", or if it is x, y, width, height (COCO) write [{x}, {y}, {w}, {h}]"


def _if_thousandths(corners: _Corners) -> str:
    if not all(0 <= corner <= 1000 for corner in corners):
        return ""
    return ", or if it is in thousandths (0 to 1000) multiply by width / 1000 and height / 1000"
