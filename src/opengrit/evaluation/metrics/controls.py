"""What costs nothing to score: one box over the whole picture, boxes at random places, the most frequent answer."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from opengrit.core.boxes import WHOLE_PICTURE, corners_at_random, corners_of, iou_of_unions, union_iou
from opengrit.core.types import Example, Record
from opengrit.evaluation.metrics.estimates import BOOTSTRAP_SEED, Quantity, key_of, seeded_generator
from opengrit.evaluation.metrics.quantities import is_complete, right
from opengrit.judges.answers import normalise

RANDOM_MOVES = 4
_normalised = lru_cache(maxsize=10_000)(normalise)  # data sets have few different answers


def whole_picture_iou(record: Record) -> float | None:
    """The grounding IoU of one box over the whole picture, on the same records: its control."""
    if not is_complete(record) or not record.example.boxes:
        return None
    return union_iou((WHOLE_PICTURE,), record.example.boxes)


def random_boxes_control(*, seed: int = BOOTSTRAP_SEED, moves: int = RANDOM_MOVES) -> Quantity:
    """A quantity: the grounding IoU of the record's own boxes after each is moved to a random place in the picture.

    Number and sizes stay, so what the boxes score above this comes from where they are. The mean of `moves` moves;
    they depend on the seed, the example and the sample, and not on the order of the records. 0 where no box is
    written, None where the row has no boxes. Raises ValueError for less than one move.
    """
    if moves < 1:
        raise ValueError(f"a control takes at least one move, got {moves}")

    def at_random_places(record: Record) -> float | None:
        if not is_complete(record) or not record.example.boxes:
            return None
        boxes = tuple(dict.fromkeys(record.transcript.boxes))
        if not boxes:
            return 0.0
        generator = seeded_generator(seed, *key_of(record.example), record.sample)
        truth = [corners_of(box) for box in record.example.boxes]
        ious = [iou_of_unions(corners_at_random(boxes, generator), truth) for _ in range(moves)]
        return math.fsum(ious) / moves

    return at_random_places


def majority_answers(examples: Iterable[Example]) -> dict[str, str]:
    """The most frequent expected answer of each data set, normalised; a tie goes to the first in the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in {key_of(example): example for example in examples}.values():
        counts[example.dataset][_normalised(example.answer)] += 1
    return {dataset: min(found, key=lambda text: (-found[text], text)) for dataset, found in counts.items()}


def majority_control(records: Sequence[Record]) -> Quantity:
    """A quantity: 1 where the row's answer is its data set's most frequent one, on the records that have a verdict.

    Its mean is the accuracy of always giving that answer, chosen in hindsight on the very rows it is scored on.
    """
    majority = majority_answers(record.example for record in records if right(record) is not None)

    def always_the_majority(record: Record) -> float | None:
        if right(record) is None:
            return None
        return float(majority[record.example.dataset] in map(_normalised, record.example.accepted))

    return always_the_majority
