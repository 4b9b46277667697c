"""Rectangles in the unit square of a picture, their areas, overlaps and matching."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Corners = tuple[float, float, float, float]  # left, top, right, bottom, in any one unit

# Scipy and numpy are imported where they are used: they take longer to load than this package.

# An overlap of exactly the threshold counts as a hit; this absorbs the rounding of unit-square floats.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a size is at least 1 x 1 pixel, got {self.width} x {self.height}")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in the unit square; (0, 0) is the top left of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        left, top, right, bottom = self.left, self.top, self.right, self.bottom
        # neither NaN nor an infinity passes
        if not (0.0 <= left <= 1.0 and 0.0 <= top <= 1.0 and 0.0 <= right <= 1.0 and 0.0 <= bottom <= 1.0):
            raise ValueError(f"a box must lie in the unit square, got {(left, top, right, bottom)}")
        if left >= right or top >= bottom:
            raise ValueError(f"a box has left < right and top < bottom, got {(left, top, right, bottom)}")

    @property
    def area(self) -> float:
        """The share of the picture the box covers, above 0 and at most 1 (0 only if it underflows)."""
        return (self.right - self.left) * (self.bottom - self.top)

    def to_pixels(self, size: Size) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in pixels of a picture of this size, not rounded."""
        return (
            self.left * size.width,
            self.top * size.height,
            self.right * size.width,
            self.bottom * size.height,
        )

    @classmethod
    def from_pixels(cls, left: float, top: float, right: float, bottom: float, *, size: Size) -> Box:
        """The part of a pixel rectangle that lies in the picture.

        Raises ValueError if the rectangle is reversed, not finite, or has no area inside the picture.
        """
        numbers = (left, top, right, bottom)
        if not all(math.isfinite(n) for n in numbers):
            raise ValueError(f"a box has finite coordinates, got {numbers}")
        inside = (
            _clip(left / size.width),
            _clip(top / size.height),
            _clip(right / size.width),
            _clip(bottom / size.height),
        )
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise ValueError(
                f"a box has left < right and top < bottom and overlaps its picture, got {numbers} "
                f"in {size.width} x {size.height} pixels"
            )
        return cls(*inside)


WHOLE_PICTURE = Box(0.0, 0.0, 1.0, 1.0)


def _clip(coordinate: float) -> float:
    return min(max(coordinate, 0.0), 1.0)


def union_area(boxes: Sequence[Box]) -> float:
    """The share of the picture that the boxes cover together, 0 to 1; overlaps count once."""
    return min(covered_area([corners_of(box) for box in boxes]), 1.0)


def union_iou(predicted: Sequence[Box], truth: Sequence[Box]) -> float:
    """Overlap of the two unions over the area of both unions together, 0 to 1 (GRIT's grounding IoU).

    Both lists empty agree perfectly and give 1.0; exactly one empty list gives 0.0. GRIT leaves rows without
    annotated boxes out of its mean, which is the caller's choice, not made here.
    """
    if set(predicted) == set(truth):
        return 1.0
    return iou_of_unions([corners_of(box) for box in predicted], [corners_of(box) for box in truth])


def iou_of_unions(ours: Sequence[Corners], theirs: Sequence[Corners]) -> float:
    """Overlap of two unions of rectangles over the area of both together, 0 to 1; 0 where nothing has an area."""
    if len(ours) == len(theirs) == 1:
        return _iou_of_two(ours[0], theirs[0])
    shared = covered_area([_overlap(one, other) for one in ours for other in theirs])
    together = covered_area(ours) + covered_area(theirs) - shared
    return min(shared / together, 1.0) if shared > 0.0 else 0.0


def _iou_of_two(one: Corners, other: Corners) -> float:
    """As for unions, to the bit, for one rectangle on each side: by far the most frequent case."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0.0 or high <= 0.0:
        return 0.0
    shared = wide * high
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return min(shared / (areas - shared), 1.0) if shared > 0.0 else 0.0


def covered_area(rectangles: Iterable[Corners]) -> float:
    """The area that the rectangles cover together; those without an area cover nothing.

    A line sweeps from left to right and a tree over the rows keeps how much of it is covered, in time n log n. The
    outline of the union, which a library for polygons would build, has up to a quadratic number of corners: a model
    that writes two hundred crossing strips would cost seconds a look.
    """
    distinct = [r for r in dict.fromkeys(rectangles) if r[0] < r[2] and r[1] < r[3]]
    if len(distinct) == 1:
        left, top, right, bottom = distinct[0]
        return (right - left) * (bottom - top)
    rows = sorted({row for _, top, _, bottom in distinct for row in (top, bottom)})
    place = {row: i for i, row in enumerate(rows)}
    line, events = _SweepLine(rows), []
    for left, top, right, bottom in distinct:
        events += [(left, 1, place[top], place[bottom]), (right, -1, place[top], place[bottom])]
    areas, before = [], 0.0
    for across, change, first, last in sorted(events):
        areas.append((across - before) * line.covered)
        line.change(first, last, change)
        before = across
    return math.fsum(areas)


class _SweepLine:
    """How much of a line is covered by intervals between `rows`, while intervals come and go."""

    def __init__(self, rows: Sequence[float]) -> None:
        self._rows = rows
        # A node's intervals cover it whole; those of its halves, parts of it. Node i has the halves 2i and 2i + 1.
        self._whole = [0] * (4 * len(rows) + 4)
        self._length = [0.0] * (4 * len(rows) + 4)

    @property
    def covered(self) -> float:
        """The length that is covered."""
        return self._length[1]

    def change(self, first: int, last: int, change: int) -> None:
        """Add (1) or take away (-1) the interval from row `first` to row `last`."""
        self._change(1, 0, len(self._rows) - 1, first, last, change)

    def _change(self, node: int, low: int, high: int, first: int, last: int, change: int) -> None:
        if first <= low and high <= last:
            self._whole[node] += change
        else:
            middle = (low + high) // 2
            if first < middle:
                self._change(2 * node, low, middle, first, last, change)
            if last > middle:
                self._change(2 * node + 1, middle, high, first, last, change)
        if self._whole[node]:
            self._length[node] = self._rows[high] - self._rows[low]
        elif high - low == 1:
            self._length[node] = 0.0
        else:
            self._length[node] = self._length[2 * node] + self._length[2 * node + 1]


def corners_of(box: Box) -> Corners:
    """Left, top, right and bottom of a box."""
    return box.left, box.top, box.right, box.bottom


def _overlap(one: Corners, other: Corners) -> Corners:
    """What two rectangles share; one that is reversed or flat where they share nothing."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def box_iou(first: Box, second: Box) -> float:
    """Overlap of two boxes over the area of both together, 0 to 1; boxes that only touch give 0."""
    return iou_of_unions([corners_of(first)], [corners_of(second)])


def pairwise_iou(predicted: Sequence[Box], truth: Sequence[Box]) -> np.ndarray:
    """The IoU of each predicted box with each true box: float64, shape (predicted, truth)."""
    import numpy as np

    ours = np.array([(b.left, b.top, b.right, b.bottom) for b in predicted], dtype=float).reshape(-1, 1, 4)
    theirs = np.array([(b.left, b.top, b.right, b.bottom) for b in truth], dtype=float).reshape(1, -1, 4)
    sides = np.minimum(ours[..., 2:], theirs[..., 2:]) - np.maximum(ours[..., :2], theirs[..., :2])
    overlap = np.clip(sides, 0.0, None).prod(axis=-1)
    areas = [(corners[..., 2:] - corners[..., :2]).prod(axis=-1) for corners in (ours, theirs)]
    together = areas[0] + areas[1] - overlap
    ious = np.divide(overlap, together, out=np.zeros_like(overlap), where=together > 0.0)
    return np.minimum(ious, 1.0)


@dataclass(frozen=True, slots=True)
class Matching:
    """Predicted and true boxes paired one to one. A pair is a hit when its IoU reaches the threshold.

    `pairs` holds (predicted index, truth index), as many as the shorter list has boxes, whatever their
    overlap; `ious` holds the IoU of each pair in the same order.
    """

    num_predicted: int
    num_truth: int
    threshold: float
    pairs: tuple[tuple[int, int], ...]
    ious: tuple[float, ...]

    @property
    def num_hits(self) -> int:
        """How many pairs overlap by the threshold or more."""
        return sum(iou >= self.threshold - ROUNDING for iou in self.ious)

    @property
    def mean_iou(self) -> float | None:
        """The mean IoU of the pairs, 0 to 1; None when there is no pair."""
        return math.fsum(self.ious) / len(self.ious) if self.ious else None

    @property
    def precision(self) -> float | None:
        """Hits over predicted boxes, 0 to 1; None when nothing is predicted."""
        return self.num_hits / self.num_predicted if self.num_predicted else None

    @property
    def recall(self) -> float | None:
        """Hits over true boxes, 0 to 1; None when there are no true boxes."""
        return self.num_hits / self.num_truth if self.num_truth else None

    @property
    def f1(self) -> float | None:
        """Twice the hits over predicted plus true boxes, 0 to 1; None when both lists are empty."""
        both = self.num_predicted + self.num_truth
        return 2 * self.num_hits / both if both else None

    @property
    def count_error(self) -> int:
        """Predicted minus true boxes: positive when too many are named."""
        return self.num_predicted - self.num_truth


def match(predicted: Sequence[Box], truth: Sequence[Box], *, threshold: float = 0.5) -> Matching:
    """The one-to-one pairing with the largest sum of IoUs (the Hungarian method).

    Raises ValueError unless the threshold lies above 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"an IoU threshold lies above 0 and at most 1, got {threshold}")
    pairs: tuple[tuple[int, int], ...] = ()
    ious: tuple[float, ...] = ()
    if len(predicted) == len(truth) == 1:  # by far the most frequent case has nothing to choose
        pairs, ious = ((0, 0),), (box_iou(predicted[0], truth[0]),)
    elif predicted and truth:
        from scipy.optimize import linear_sum_assignment

        table = pairwise_iou(predicted, truth)
        rows, columns = linear_sum_assignment(table, maximize=True)
        pairs = tuple((int(row), int(column)) for row, column in zip(rows, columns, strict=True))
        ious = tuple(float(table[pair]) for pair in pairs)
    return Matching(
        num_predicted=len(predicted), num_truth=len(truth), threshold=threshold, pairs=pairs, ious=ious
    )


def moved_at_random(boxes: Sequence[Box], generator: np.random.Generator) -> tuple[Box, ...]:
    """The same boxes, each with its width and height kept, at places sampled evenly from where it fits the picture."""
    return tuple(Box(*corners) for corners in corners_at_random(boxes, generator))


def corners_at_random(boxes: Sequence[Box], generator: np.random.Generator) -> list[Corners]:
    """The corners of `moved_at_random`, for those who compare areas and need no boxes."""
    places = generator.random((len(boxes), 2)).tolist()
    return [_moved(box, across, down) for box, (across, down) in zip(boxes, places, strict=True)]


def _moved(box: Box, across: float, down: float) -> Corners:
    """The box at these shares (0 to 1) of the space that its size leaves it."""
    width, height = box.right - box.left, box.bottom - box.top
    left, top = across * (1.0 - width), down * (1.0 - height)
    return left, top, min(left + width, 1.0), min(top + height, 1.0)
