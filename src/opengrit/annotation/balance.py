"""How far a file of rows is: which rows are good, of which kinds they are, and whether one answer is too frequent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from opengrit.annotation.draft import examined
from opengrit.annotation.row_file import StoredRow
from opengrit.core.escaping import shortened
from opengrit.core.types import Example, is_counting
from opengrit.data.doubts import is_sentence
from opengrit.judges.answers import AnswerKind, answer_kind

ENOUGH = 20  # rows that GRIT trains on
_FEW = 6  # rows that say nothing of balance yet
_MOST = 0.5  # of the rows with one answer
_MOST_YES = 0.7  # of the yes/no rows with one answer


class Kind(Enum):
    """What a row asks."""

    COUNT = "count"
    YES_NO = "yes/no"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Judged:
    """A row with its kind, and why it is not good (None where it is)."""

    id: int
    kind: Kind
    problem: str | None


@dataclass(frozen=True, slots=True)
class Balance:
    """The rows, how many are good, how many there are of each kind and of the most frequent answers, and advice."""

    rows: tuple[Judged, ...]
    num_good: int
    kinds: dict[str, int]
    answers: tuple[tuple[str, int], ...]
    advice: tuple[str, ...]


def balance(rows: Sequence[StoredRow], *, file: Path, folder: Path, pictures: Collection[str]) -> Balance:
    """What the rows of a file come to; `pictures` are the names of those that are there in `folder`."""
    read = [examined(row.line, file=file, line=n, folder=folder) for n, row in enumerate(rows, start=1)]
    seen: Counter[tuple[str, str]] = Counter()
    judged: list[Judged] = []
    examples: list[Example] = []
    for row, (example, problems) in zip(rows, read, strict=True):
        if example is None or problems:
            judged.append(Judged(row.id, Kind.OPEN, problems[0].message if problems else "cannot be read"))
            continue
        asked = (example.image, " ".join(example.question.casefold().split()))
        seen[asked] += 1
        problem = _problem(example)
        if row.values["image"] not in pictures:
            problem = f"its picture {shortened(row.values['image'], 60)} is not in the folder"
        elif seen[asked] > 1:
            problem = "the same is asked about this picture in another row"
        judged.append(Judged(row.id, kind_of(example), problem))
        examples.append(example)
    counts = Counter(one.kind for one in judged)
    answers = Counter(" ".join(example.answer.casefold().split()) for example in examples)
    return Balance(
        rows=tuple(judged),
        num_good=sum(one.problem is None for one in judged),
        kinds={kind.value: counts[kind] for kind in Kind},
        answers=tuple(answers.most_common(8)),
        advice=tuple(_advice(examples)),
    )


def kind_of(example: Example) -> Kind:
    """What an example asks."""
    if is_counting(example):
        return Kind.COUNT
    is_yes_no = answer_kind(example.answer, example.question) is AnswerKind.YES_NO
    return Kind.YES_NO if is_yes_no else Kind.OPEN


def _problem(example: Example) -> str | None:
    """Why a row that can be used is not good."""
    if is_sentence(example.answer):
        return "the answer is a sentence: write the word or the number alone"
    if is_counting(example) and example.boxes and len(example.boxes) != example.count:
        boxes = f"{len(example.boxes)} box{'es' if len(example.boxes) > 1 else ''}"
        return f"{boxes} and the answer {example.answer}: draw one for each, or none"
    return None


def _advice(examples: Sequence[Example]) -> list[str]:
    """What would make the rows teach more; nothing as long as there are few."""
    by_kind: dict[Kind, Counter[str]] = defaultdict(Counter)
    for example in examples:
        by_kind[kind_of(example)][example.answer.casefold().strip(" .")] += 1
    every = sum(by_kind.values(), Counter())
    found = []
    for name, answers, most in (
        ("", every, _MOST),
        ("yes/no ", by_kind[Kind.YES_NO], _MOST_YES),
    ):
        total = sum(answers.values())
        if total < _FEW:
            continue
        answer, count = answers.most_common(1)[0]
        if count > most * total:
            found.append(
                f"{count} of {total} {name}rows have the answer {shortened(answer, 30)!r}: who always says so is mostly "
                "right; ask where it is another one"
            )
    return found[:1]
