"""Object-level advantage (POLIA, ICML 2026): each written box is credited for its own object, on its own tokens.

Within a group, completions whose boxes found the same objects are compared with one another, object by object: what is
compared is the reward of the completion times how well its box fits. The result is added on the tokens that spell the
box, and nowhere else, so that a box is not praised for another's place.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opengrit.core.boxes import Box, match
from opengrit.core.types import Record

_IOU, _DISTANCE = 0.7, 0.3  # weights of the two halves of a box's fit (POLIA's script)
_FLAT = 1e-5  # rewards that are no further apart are equal up to rounding
_SMALL = 1e-4  # TRL's, beside the standard deviation

# Places of the tokens that spell a box, in the completion.
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What the boxes of a completion found: of each object (its place among the row's boxes) how well its box fits, 0 to 1.

    `total` is what the completion is worth, None where that is not known: it is compared with none.
    """

    total: float | None
    fits: Mapping[int, float] = field(default_factory=dict)


def fit_of(written: Box, labelled: Box, *, iou: float) -> float:
    """How well a box fits the one it is matched with, 0 to 1: 0.7 IoU + 0.3 (1 - the mean distance of their edges)."""
    ours = (written.left, written.top, written.right, written.bottom)
    theirs = (labelled.left, labelled.top, labelled.right, labelled.bottom)
    distance = sum(abs(one - other) for one, other in zip(ours, theirs, strict=True)) / 4
    return min(max(_IOU * iou + _DISTANCE * (1.0 - distance), 0.0), 1.0)


def objects_of(record: Record, *, min_iou: float) -> dict[int, tuple[Box, float]]:
    """Of each object that a box of the record found the box and its IoU: one to one, by the largest sum of IoUs.

    A pair with an IoU below `min_iou` is none. A box that is written twice is one.
    """
    written = tuple(dict.fromkeys(record.transcript.boxes))
    matching = match(written, record.example.boxes)
    return {
        labelled: (written[place], iou)
        for (place, labelled), iou in zip(matching.pairs, matching.ious, strict=True)
        if iou >= min_iou
    }


def found_by(record: Record, *, min_iou: float) -> Found:
    """What the boxes of a scored record found."""
    objects = objects_of(record, min_iou=min_iou)
    labelled = record.example.boxes
    return Found(
        record.score.total, {o: fit_of(box, labelled[o], iou=iou) for o, (box, iou) in objects.items()}
    )


def object_advantages(rows: Sequence[Found], *, group: int) -> list[dict[int, float]]:
    """The advantage of each object that each completion found; `group` consecutive rows are one question's.

    Completions of a group that found the same objects are compared by total x fit (0 for a negative total): minus their mean, divided by their
    standard deviation (with Bessel's correction and 1e-4, as TRL divides). One that stands alone has 0.
    """
    found: list[dict[int, float]] = [{} for _ in rows]
    for start in range(0, len(rows), group):
        alike: dict[frozenset[int], list[int]] = defaultdict(list)
        for place in range(start, start + group):
            if rows[place].total is not None and rows[place].fits:
                alike[frozenset(rows[place].fits)].append(place)
        for objects, places in alike.items():
            for one in sorted(objects):
                worth = [_worth(rows[place], one) for place in places]
                for place, advantage in zip(places, _standardised(worth), strict=True):
                    found[place][one] = advantage
    return found


def _worth(row: Found, one: int) -> float:
    """0 where the total is below 0: times a fit it would be lower the better the box is."""
    assert row.total is not None
    return max(row.total, 0.0) * row.fits[one]


def _standardised(values: Sequence[float]) -> list[float]:
    if len(values) < 2 or max(values) - min(values) < _FLAT:
        return [0.0] * len(values)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return [(value - mean) / (deviation + _SMALL) for value in values]


def box_tokens(record: Record, starts: Sequence[int], ends: Sequence[int]) -> dict[Box, Tokens]:
    """The tokens that spell each box of a record, all its mentions together: those that hold a character of it.

    Token i holds the characters `starts[i]` to `ends[i]` of the completion's text.
    """
    tokens: dict[Box, list[int]] = defaultdict(list)
    for pointing in record.transcript.pointings:
        tokens[pointing.box] += [
            i
            for i, (start, end) in enumerate(zip(starts, ends, strict=True))
            if start < pointing.end and end > pointing.start
        ]
    return {box: tuple(dict.fromkeys(places)) for box, places in tokens.items()}
