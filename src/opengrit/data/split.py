"""Rows in two parts that share no picture, each with the kinds of answers that the whole has."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opengrit.core.errors import DataError
from opengrit.core.types import Example
from opengrit.data.fingerprint import content_of
from opengrit.judges.answers import answer_kind, normalise


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on and what is kept to measure with, each in the order it was in."""

    train: tuple[Example, ...]
    test: tuple[Example, ...]


def split_by_picture(
    examples: Sequence[Example],
    *,
    test_share: float,
    seed: int,
    picture_of: Callable[[str], str | None] = content_of,
) -> Split:
    """The rows in two parts: about `test_share` of them (between 0 and 1) to measure with, and the others.

    All rows about one picture, whatever its file is called, are in the same part. Pictures are taken at even distances
    from a list that is ordered by kind of answer and answer, and by chance within that, so that both parts have each kind
    in its share where there are pictures enough. `picture_of` gives the hash of a picture's content by its path.

    Raises DataError where there are fewer than two pictures, or the share is none.
    """
    if not 0 < test_share < 1:
        raise DataError(
            f"a share of the rows is between 0 and 1, got --test-share {test_share:g}; write 0.2, for example"
        )
    groups: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        groups[picture_of(example.image) or example.image].append(place)
    if len(groups) < 2:
        raise DataError(
            f"rows are split by picture, these have only {len(groups)}; give rows about at least two different pictures"
        )
    chance = random.Random(seed)
    shuffled = sorted(groups.values())
    chance.shuffle(shuffled)
    shuffled.sort(
        key=lambda places: _kind([examples[place] for place in places])
    )  # stable: by chance within a kind
    tested: list[list[int]] = []
    due = chance.random()
    for places in shuffled:
        due += test_share * len(places)
        if due >= 1:
            due -= len(places)
            tested.append(places)
    tested = tested or [shuffled[len(shuffled) // 2]]
    if len(tested) == len(shuffled):
        tested = tested[:-1]
    test = {place for places in tested for place in places}
    return Split(
        tuple(example for place, example in enumerate(examples) if place not in test),
        tuple(example for place, example in enumerate(examples) if place in test),
    )


def _kind(rows: Sequence[Example]) -> tuple[str, str]:
    """The most frequent kind of answer and answer of a picture's rows."""
    kinds = Counter((answer_kind(row.answer, row.question).value, normalise(row.answer)) for row in rows)
    return min(kinds, key=lambda kind: (-kinds[kind], kind))
