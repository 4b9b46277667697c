"""What rows and their pictures are, in hashes: taken when a run starts, so that a later command can say what changed since."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from opengrit.core.types import Example

_SHORT = 12  # hexadecimal digits of a part of a row: enough to tell its versions apart
_PICTURE = 16  # of a picture, which is told apart from all the others
_ANSWER = 48  # characters of an answer that are kept as they are
_LISTED = 5  # rows that a message names


def sha256_of(path: str | Path) -> str | None:
    """The SHA-256 of a file's content, hexadecimal; None where there is no such file."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_of(path: str) -> str | None:
    """As `sha256_of`, but a file is read once in a process, and again only where its size or its time of change is another."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return _content(path, facts.st_size, facts.st_mtime_ns)


@cache
def _content(path: str, size: int, mtime_ns: int) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class RowPrint:
    """One row in hashes. `question` and `picture` (its content) are what is asked; `answer`, `boxes` and `labels` (everything
    else of the row) are its annotation. `image` is the path; a picture of another name and the same content is the same.
    """

    id: str
    question: str
    picture: str  # "" where there is no file
    image: str
    answer: str  # as it is where it is short; where several are accepted, their list as JSON
    boxes: str  # how many, a colon, and their hash
    labels: str

    @property
    def asked(self) -> tuple[str, str]:
        """What identifies the row: its question and its picture."""
        return self.question, self.picture


@dataclass(frozen=True, slots=True)
class Digests:
    """A set of rows in three hashes: what is asked (ids, questions, pictures, in order), the annotation, the pictures' names."""

    asked: str
    annotation: str
    images: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A set of rows, in order."""

    rows: tuple[RowPrint, ...]
    digests: Digests


def fingerprint(
    examples: Sequence[Example], *, picture_of: Callable[[str], str | None] = content_of
) -> Fingerprint:
    """The fingerprint of some rows. `picture_of` gives the hash of a picture's content by its path, or None.

    Each picture is read once, however many rows ask about it.
    """
    known: dict[str, str] = {}
    rows = []
    for example in examples:
        if example.image not in known:
            known[example.image] = (picture_of(example.image) or "")[:_PICTURE]
        rows.append(_row_print(example, known[example.image]))
    return of_rows(rows)


def of_rows(rows: Iterable[RowPrint]) -> Fingerprint:
    """The fingerprint whose rows are known."""
    rows = tuple(rows)
    return Fingerprint(
        rows,
        Digests(
            asked=_digest((row.id, row.question, row.picture) for row in rows),
            annotation=_digest((row.answer, row.boxes, row.labels) for row in rows),
            images=_digest((row.image,) for row in rows),
        ),
    )


def _row_print(example: Example, picture: str) -> RowPrint:
    boxes = [(b.left, b.top, b.right, b.bottom) for b in example.boxes]
    size = example.picture_size
    labels = (example.dataset, example.split, example.key_words, size.width, size.height, example.boxes_known)
    # A row with one answer is printed as it was before rows could have several: earlier runs stay comparable.
    answer = json.dumps(example.accepted) if example.also_accepted else example.answer
    if len(answer) > _ANSWER:
        answer = f"{answer[:_ANSWER]}... ({_short(answer)})"
    return RowPrint(
        id=example.id,
        question=_short(example.question),
        picture=picture,
        image=example.image,
        answer=answer,
        boxes=f"{len(boxes)}:{_short(boxes)}" if boxes else "0",
        labels=_short(labels),
    )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_SHORT]


def _digest(parts: Iterable[tuple[str, ...]]) -> str:
    found = hashlib.sha256()
    for part in parts:
        # Lengths go before the texts, so that no two sequences give the same bytes.
        found.update("".join(f"{len(text)}:{text}" for text in part).encode("utf-8", "surrogatepass"))
        found.update(b"\n")
    return found.hexdigest()


# -- what changed ----------------------------------------------------------------------------------------------------


class Kind(Enum):
    """What became of a row; the value says it of many."""

    INSERTED = "inserted"
    DELETED = "deleted"
    MOVED = "in another place"
    QUESTION = "with another question"
    PICTURE = "with another picture"  # of the same name or of another one: its content is another
    NAME = "with another id"
    ANSWER = "with another answer"
    BOXES = "with other boxes"
    LABELS = "with other labels (dataset, split, key_words, width, height)"
    RENAMED = "whose picture has another name and the same content"

    @property
    def is_annotation(self) -> bool:
        """Whether what is asked is the same: the question, the picture and the place of the row."""
        return self in (Kind.ANSWER, Kind.BOXES, Kind.LABELS)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One thing that changed about one row, in words; `place` orders changes as the rows are."""

    kind: Kind
    place: int
    text: str


@dataclass(frozen=True, slots=True)
class DataChanges:
    """What changed between two fingerprints, in the order of the rows."""

    rows: tuple[RowChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def important(self) -> DataChanges:
        """Those that change what a run computes; a picture under another name does not."""
        return DataChanges(tuple(change for change in self.rows if change.kind is not Kind.RENAMED))

    @property
    def renamed(self) -> DataChanges:
        """The pictures that have another name and the same content."""
        return DataChanges(tuple(change for change in self.rows if change.kind is Kind.RENAMED))

    @property
    def only_annotation(self) -> bool:
        """Whether the same questions are asked about the same pictures in the same order."""
        return all(change.kind.is_annotation for change in self.important.rows)

    def phrases(self) -> list[str]:
        """The first few changes, one phrase each, and how many there are of each kind where there are more."""
        found = [change.text for change in self.rows[:_LISTED]]
        return [*found, f"in all {self.counted()}"] if len(self.rows) > _LISTED else found

    def counted(self) -> str:
        """How many changes there are of each kind; "" where there are none. No file is named."""
        counts = Counter(change.kind for change in self.rows)
        return ", ".join(f"{count} {kind.value}" for kind, count in counts.items())


def compare(then: Fingerprint, now: Fingerprint) -> DataChanges:
    """How the rows of `now` differ from those of `then`, in time that grows with the rows (times a logarithm)."""
    if then.digests == now.digests:
        return DataChanges()
    paired = _paired(then.rows, now.rows)
    old_of = {new: old for old, new in paired.pairs}
    found: list[RowChange] = []
    for place, row in enumerate(now.rows):
        if place not in old_of:
            found.append(RowChange(Kind.INSERTED, place, f"row {place + 1} ({row.id}): inserted"))
            continue
        before = old_of[place]
        found += _changes_of_row(
            then.rows[before], row, before=before, place=place, moved=before in paired.moved
        )
    kept = {old for old, _ in paired.pairs}
    for place, row in enumerate(then.rows):
        if place not in kept:
            found.append(RowChange(Kind.DELETED, place, f"row {place + 1} then ({row.id}): deleted"))
    if not found:  # only what rows are called: a file under another name
        found += [
            RowChange(Kind.NAME, place, f"row {place + 1}: its id was {then.rows[old].id}, and is {now.rows[place].id}")
            for place, old in sorted(old_of.items())
            if then.rows[old].id != now.rows[place].id
        ]  # fmt: skip
    return DataChanges(tuple(sorted(found, key=lambda change: change.place)))


def _changes_of_row(
    then: RowPrint, now: RowPrint, *, before: int, place: int, moved: bool
) -> Iterator[RowChange]:
    head = f"row {place + 1} ({now.id})"
    if moved:
        yield RowChange(Kind.MOVED, place, f"{head}: was row {before + 1} ({then.id})")
    if then.question != now.question:
        yield RowChange(Kind.QUESTION, place, f"{head}: question changed")
    if then.picture != now.picture:
        what = "picture exchanged" if then.image == now.image else f"picture changed from {then.image} to"
        yield RowChange(Kind.PICTURE, place, f"{head}: {what} {now.image}")
    elif then.image != now.image:
        yield RowChange(
            Kind.RENAMED, place, f"{head}: picture was {then.image}, and is {now.image} with the same content"
        )
    if then.answer != now.answer:
        yield RowChange(
            Kind.ANSWER, place, f"{head}: answer changed, {then.answer!r} then, {now.answer!r} now"
        )
    if then.boxes != now.boxes:
        old, new = then.boxes.partition(":")[0], now.boxes.partition(":")[0]
        count = "" if old == new else f", {old} then, {new} now"
        yield RowChange(Kind.BOXES, place, f"{head}: boxes changed{count}")
    if then.labels != now.labels:
        yield RowChange(
            Kind.LABELS, place, f"{head}: dataset, split, key_words, width, height or the field bboxs changed"
        )


@dataclass(frozen=True, slots=True)
class _Paired:
    """The rows of then and now that are the same one, by their places, and those of then that are in another place."""

    pairs: list[tuple[int, int]]
    moved: frozenset[int]


def _paired(then: Sequence[RowPrint], now: Sequence[RowPrint]) -> _Paired:
    """Rows that ask the same are the same; those left over between two such rows are paired by what they share."""
    start = 0
    while start < min(len(then), len(now)) and _is_in_place(then[start], now[start]):
        start += 1
    end = 0
    while end < min(len(then), len(now)) - start and _is_in_place(then[-1 - end], now[-1 - end]):
        end += 1
    pairs = [(place, place) for place in range(start)]
    pairs += [(len(then) - 1 - i, len(now) - 1 - i) for i in range(end)]
    old = list(range(start, len(then) - end))
    new = list(range(start, len(now) - end))
    if len(old) == len(new):  # a picture that was exchanged for that of another row has not moved
        same = [(i, j) for i, j in zip(old, new, strict=True) if _shares_name(then[i], now[j])]
        pairs += same
        old = _without(old, (i for i, _ in same))
        new = _without(new, (j for _, j in same))
    matched = _matched(old, new, lambda i: then[i].asked, lambda j: now[j].asked)
    in_order = _longest_rising(matched)
    moved = frozenset(i for i, _ in matched) - frozenset(i for i, _ in in_order)
    pairs += matched
    old = _without(old, (i for i, _ in matched))
    new = _without(new, (j for _, j in matched))
    olds, news = [i for i, _ in in_order], [j for _, j in in_order]
    for key in _SHARED:
        # Only between the same two rows that are in order: a question in a far place is another row.
        old_keys = {i: (bisect_left(olds, i), key(then[i])) for i in old}
        new_keys = {j: (bisect_left(news, j), key(now[j])) for j in new}
        matched = _matched(old, new, old_keys.__getitem__, new_keys.__getitem__)
        pairs += matched
        old = _without(old, (i for i, _ in matched))
        new = _without(new, (j for _, j in matched))
    return _Paired(pairs, moved)


# What a changed row shares with what it was, the most first.
_SHARED: tuple[Callable[[RowPrint], Hashable], ...] = (
    lambda row: (row.question, row.image),
    lambda row: (row.image, row.answer, row.boxes),
    lambda row: (row.picture, row.answer, row.boxes),
    lambda row: row.question,
    lambda row: row.image,
    lambda row: row.picture,
)


def _is_in_place(then: RowPrint, now: RowPrint) -> bool:
    return then.asked == now.asked


def _shares_name(then: RowPrint, now: RowPrint) -> bool:
    return (then.question, then.image) == (now.question, now.image)


def _without(places: Sequence[int], taken: Iterable[int]) -> list[int]:
    gone = set(taken)
    return [place for place in places if place not in gone]


def _matched(
    old: Sequence[int],
    new: Sequence[int],
    old_key: Callable[[int], Hashable],
    new_key: Callable[[int], Hashable],
) -> list[tuple[int, int]]:
    """Places of equal keys in pairs, the first with the first; ordered by the place of then."""
    waiting: dict[Hashable, deque[int]] = defaultdict(deque)
    for place in new:
        waiting[new_key(place)].append(place)
    return [(place, line.popleft()) for place in old if (line := waiting.get(old_key(place)))]


def _longest_rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The largest number of pairs whose second places rise as their first ones do: the rows that nobody moved."""
    ends: list[int] = []  # the smallest second place that a rising sequence of each length ends with
    at: list[int] = []  # which pair that is
    before: list[int] = []  # for each pair the one before it in its sequence
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(at[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        at[length : length + 1] = [number]
    found = []
    number = at[-1] if at else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]
