"""What makes a file doubtful though each of its rows loads: boxes in another convention, and answers a rule cannot judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opengrit.core.boxes import Size
from opengrit.core.escaping import shortened
from opengrit.core.types import Example

# A corner box ends beyond twice its start as often as not; 0.39 of the sides of GRIT's own boxes fit as a width, at most.
_LIKE_A_WIDTH = 0.98
_FEWEST_SIDES = 16  # that say something: by chance 2^-16
_AT_THE_EDGE = 0.02  # of the picture: a side that starts there fits both ways
_THOUSAND = 1000
_LARGE = 1500  # pixels: in such a picture numbers up to 1000 say something
_MANY = 0.2  # of the answers
_WORDS = 6  # from which an answer is a sentence


@dataclass(frozen=True, slots=True)
class WrittenBox:
    """Four numbers of a row as written, and the picture's size in pixels."""

    line: int
    numbers: tuple[float, float, float, float]
    size: Size

    @property
    def sides(self) -> tuple[tuple[float, float, int], ...]:
        """First number, second number and the picture's extent, across and down."""
        a, b, c, d = self.numbers
        return ((a, c, self.size.width), (b, d, self.size.height))


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that is doubtful of a whole file. `misleads`: figures and rewards would be wrong if it is so."""

    message: str
    misleads: bool

    def __str__(self) -> str:
        return self.message


def find_doubts(examples: Sequence[Example], boxes: Sequence[WrittenBox]) -> tuple[Doubt, ...]:
    """The doubts of a file's usable rows and of all boxes of four numbers in it."""
    different = list({(box.numbers, box.size): box for box in reversed(boxes)}.values())[::-1]
    convention = _thousandths(different) or _widths(different)
    found = [convention, _contradictions(examples), _sentences(examples)]
    return tuple(doubt for doubt in found if doubt is not None)


def fits_as_width(numbers: Sequence[float], size: Size) -> bool:
    """Whether four numbers are a box in the picture when the last two are its width and height."""
    left, top, width, height = numbers
    return (
        min(left, top) >= 0 and min(width, height) > 0
        and left + width <= size.width + 1 and top + height <= size.height + 1
    )  # fmt: skip


def looks_like_widths(boxes: Sequence[WrittenBox]) -> bool:
    """Whether boxes are x, y, width, height (COCO): their sides fit as widths, which those of corners do by chance only."""
    fitting, telling = _fitting_as_widths(boxes)
    return telling >= _FEWEST_SIDES and fitting >= _LIKE_A_WIDTH * telling


def _fitting_as_widths(boxes: Sequence[WrittenBox]) -> tuple[int, int]:
    """How many sides fit the picture as a width or a height, of how many that say something."""
    telling = [side for box in boxes for side in box.sides if side[0] > _AT_THE_EDGE * side[2]]
    return sum(end > 0 and start + end <= extent + 1 for start, end, extent in telling), len(telling)


def _widths(boxes: Sequence[WrittenBox]) -> Doubt | None:
    """x, y, width, height (COCO) where corners are expected."""
    if not looks_like_widths(boxes):
        return None
    fitting, telling = _fitting_as_widths(boxes)
    first = next(box for box in boxes if fits_as_width(box.numbers, box.size))
    x, y, w, h = first.numbers
    return Doubt(
        f"bboxs seem to be x, y, width, height (COCO), where corners are expected: {fitting} of {telling} sides fit the "
        "picture as a width or height, where corners would fit in less than half of the cases (the first is "
        f"{_shown(first.numbers)} in line {first.line}); if so, write [x, y, x + width, y + height], here "
        f"{_shown((x, y, x + w, y + h))}",
        misleads=True,
    )


def looks_like_thousandths(boxes: Sequence[WrittenBox]) -> bool:
    """Whether boxes are thousandths: numbers from 0 to 1000, as corners in order, in pictures much larger than that."""
    telling = [side for box in boxes for side in box.sides if side[2] >= _LARGE]
    return len(telling) >= _FEWEST_SIDES and all(start < end <= _THOUSAND for start, end, _ in telling)


def _thousandths(boxes: Sequence[WrittenBox]) -> Doubt | None:
    if not looks_like_thousandths(boxes):
        return None
    telling = [side for box in boxes for side in box.sides if side[2] >= _LARGE]
    return Doubt(
        "bboxs seem to be thousandths of the picture (0 to 1000) instead of pixels: no number is above 1000 in "
        f"{len(telling)} sides of {_LARGE} or more pixels; if so, multiply by width / 1000 and height / 1000",
        misleads=True,
    )


def _contradictions(examples: Iterable[Example]) -> Doubt | None:
    """One question about one picture with two answers."""
    rows: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for example in examples:
        question = " ".join(example.question.casefold().split())
        rows[example.image, question].setdefault(" ".join(example.answer.casefold().split()), example.id)
    twice = [answers for answers in rows.values() if len(answers) > 1]
    if not twice:
        return None
    shown = " and ".join(f"{shortened(answer, 40)!r} in {id_}" for answer, id_ in list(twice[0].items())[:2])
    return Doubt(
        f"{len(twice)} questions about a picture occur with two different answers (the first: {shown}); keep the right "
        "one",
        misleads=True,
    )


def _sentences(examples: Sequence[Example]) -> Doubt | None:
    """Answers of many words: the rule asks for the same words, and hardly any model finds those."""
    found = [example for example in examples if is_sentence(example.answer)]
    if len(found) < max(1.0, _MANY * len(examples)):
        return None
    return Doubt(
        f"{len(found)} of {len(examples)} answers are sentences, which the rule judge accepts only in the same words "
        f"(the first: {shortened(found[0].answer)!r} in {found[0].id}); write only the word or number, or let a model "
        "judge (judge: {kind: endpoint, ...} in a recipe)",
        misleads=False,
    )


def is_sentence(answer: str) -> bool:
    """Whether an answer has so many words that a rule hardly ever finds it said again."""
    words = answer.split()
    return len(words) >= _WORDS or (len(words) >= 3 and answer.rstrip().endswith((".", "。")))


def _shown(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{n:g}' for n in numbers)}]"
