"""What `opengrit data check` finds: counts, answer balance, missing pictures, sizes, duplicates and leaks."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from opengrit.core.boxes import Size
from opengrit.core.errors import ImageError
from opengrit.core.images import open_picture
from opengrit.core.types import Example
from opengrit.data.doubts import Doubt
from opengrit.data.fingerprint import sha256_of
from opengrit.data.grit import ParsedFile
from opengrit.data.missing import remedy_for_pictures
from opengrit.data.problems import Problem, Severity
from opengrit.data.sources import read_source

# A picture may be a rescaled copy of the annotated one; its sides may then round to the next pixel.
_ROUNDING_PIXELS = 1.0
_Key = TypeVar("_Key")
_LINES_SHOWN = 100  # of rows that leak


class LeakKind(Enum):
    """What a training row and a test row have in common."""

    PAIR = "same picture and question"
    PICTURE = "same picture"
    QUESTION = "same question"  # usual with templates ("How many dogs are there?"), listed but no failure


@dataclass(frozen=True, slots=True)
class Leak:
    """A test row that shares something with training rows."""

    kind: LeakKind
    train_id: str  # the first training row in question
    test_id: str
    shared: str  # the picture's name or the question


@dataclass(frozen=True, slots=True)
class SizeMismatch:
    """A row whose width and height are not its picture's. `harmless`: same shape, so boxes still fit."""

    id: str
    image: str
    in_row: Size
    in_file: Size
    harmless: bool


@dataclass(frozen=True, slots=True)
class DataSetCounts:
    """One `dataset` value of one file, counted over its usable rows."""

    dataset: str
    rows: int
    images: int  # distinct paths
    boxes: int
    rows_with_boxes: int
    rows_with_no_box: int  # an empty "bboxs"
    rows_without_boxes_field: int
    answers: tuple[tuple[str, int], ...]  # the answers folded to lower case, most frequent first


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file, read to its end. Picture findings are empty where `pictures_looked_for` is False."""

    file: str
    rows: int
    datasets: tuple[DataSetCounts, ...]
    problems: tuple[Problem, ...]
    unique_images: int
    folder: str  # that image paths start from
    pictures_looked_for: bool
    remedy_for_pictures: str  # where some are missing, or none was looked for
    missing_images: tuple[str, ...]  # those that say a row's size too, where the others are not looked for
    unreadable_images: tuple[str, ...]  # the message of each
    size_mismatches: tuple[SizeMismatch, ...]
    duplicates: tuple[tuple[str, ...], ...]  # ids of rows with the same picture and question
    doubts: tuple[Doubt, ...]

    @property
    def unusable(self) -> bool:
        """True where loading would fail: bad rows, or pictures missing or unreadable."""
        bad_rows = any(problem.severity is Severity.ERROR for problem in self.problems)
        return bool(self.missing_images or self.unreadable_images or bad_rows)

    @property
    def doubtful(self) -> bool:
        """True where loading works but the figures would mislead: sizes of another shape, boxes of another convention."""
        wrong_size = any(not mismatch.harmless for mismatch in self.size_mismatches)
        return wrong_size or any(doubt.misleads for doubt in self.doubts)


@dataclass(frozen=True, slots=True)
class Check:
    """All files of one `data check`, and what training and test rows share."""

    files: tuple[FileCheck, ...]
    leaks: tuple[Leak, ...]
    train_rows: int  # compared with
    test_rows: int  # (both 0 where nothing says which is which)

    @property
    def unusable(self) -> bool:
        """True where some file cannot be loaded."""
        return any(file.unusable for file in self.files)

    @property
    def doubtful(self) -> bool:
        """True where something misleads: a picture shared by training and test, or boxes of another picture."""
        leaked = any(leak.kind is not LeakKind.QUESTION for leak in self.leaks)
        return leaked or any(file.doubtful for file in self.files)


@dataclass(frozen=True, slots=True)
class Source:
    """A file to check and its image folder; without one, pictures are not looked for."""

    file: Path
    images: Path | None = None


class Watch(Protocol):
    """Is told how far a check has come: so many of so many (None: not known yet) rows of a file, or pictures."""

    def __call__(self, what: str, done: int, total: int | None) -> None: ...


def check(files: Sequence[Source], against: Sequence[Source] = (), *, watch: Watch | None = None) -> Check:
    """Everything found in the files, and what they share with the test files they are checked `against`.

    Without test files, rows whose `split` is "train" are compared with rows of any other named split. Pictures
    are the same when their files' contents are; where a file is not there, when name and size are.

    Every file is read once and every distinct picture opened once.

    Raises:
        DataError: a file cannot be read at all.
    """
    readings = [(source, _read(source, watch)) for source in (*files, *against)]
    examples = [reading.examples for _, reading in readings]
    if against:
        train = [e for rows in examples[: len(files)] for e in rows]
        test = [e for rows in examples[len(files) :] for e in rows]
    else:
        every = [e for rows in examples for e in rows]
        train = [e for e in every if e.split == "train"]
        test = [e for e in every if e.split not in (None, "train")]
    return Check(
        files=tuple(
            check_reading(reading, pictures=source.images is not None, watch=watch)
            for source, reading in readings
        ),
        leaks=tuple(find_leaks(train, test)),
        train_rows=len(train) if test else 0,
        test_rows=len(test) if train else 0,
    )


def _read(source: Source, watch: Watch | None) -> ParsedFile:
    if watch is None:
        return read_source(source.file, source.images)
    what = f"rows of {source.file.name}"
    reading = read_source(source.file, source.images, on_rows=lambda rows: watch(what, rows, None))
    watch(what, reading.rows, reading.rows)
    return reading


def check_reading(reading: ParsedFile, *, pictures: bool, watch: Watch | None = None) -> FileCheck:
    """One file's findings; `pictures` says whether its pictures are looked for and decoded."""
    images = {example.image for example in reading.examples}
    absent = [image for image in images if not os.path.isfile(image)] if pictures else []
    missing = sorted({*absent, *reading.missing})
    images.update(missing)
    sizes, unreadable = _sizes(sorted(images - set(missing)), watch) if pictures else ({}, [])
    by_dataset = defaultdict(list)
    for example in reading.examples:
        by_dataset[example.dataset].append(example)
    return FileCheck(
        file=reading.file,
        rows=reading.rows,
        datasets=tuple(_counts(name, rows) for name, rows in by_dataset.items()),
        problems=reading.problems,
        unique_images=len(images),
        folder=reading.folder,
        pictures_looked_for=pictures,
        remedy_for_pictures=(
            ""
            if pictures and not missing
            else remedy_for_pictures(reading.file, missing or sorted(images), folder=reading.folder)
        ),
        missing_images=tuple(missing),
        unreadable_images=tuple(unreadable),
        size_mismatches=tuple(_size_mismatches(reading.examples, sizes)),
        duplicates=tuple(_duplicates(reading.examples)),
        doubts=reading.doubts,
    )


def find_leaks(train: Iterable[Example], test: Iterable[Example]) -> list[Leak]:
    """One leak for every test row that shares its picture or its question with a training row, gravest kind first."""
    train, test = list(train), list(test)
    if not train or not test:
        return []
    fingerprint = cache(sha256_of)
    by_content: dict[str, _OfPicture] = {}
    by_name: dict[tuple[str, Size], _OfPicture] = {}
    # Two files that are both there are compared by content alone: "1.png" is a name many data sets use.
    by_name_of_absent: dict[tuple[str, Size], _OfPicture] = {}
    by_question: dict[str, Example] = {}
    for row in train:
        question, name, content = _folded(row.question), _name(row), fingerprint(row.image)
        _add(by_name, name, row, question)
        if content is None:
            _add(by_name_of_absent, name, row, question)
        else:
            _add(by_content, content, row, question)
        by_question.setdefault(question, row)
    leaks = []
    for row in test:
        content = fingerprint(row.image)
        named = (by_name if content is None else by_name_of_absent).get(_name(row))
        same_content = None if content is None else by_content.get(content)
        same_picture = [found for found in (same_content, named) if found is not None]
        leak = _leak(row, same_picture=same_picture, by_question=by_question)
        if leak is not None:
            leaks.append(leak)
    order = list(LeakKind)
    return sorted(leaks, key=lambda leak: order.index(leak.kind))


def remedy_for_leaks(leaks: Iterable[Leak], *, test_rows: int) -> str:
    """What to take out, so that no picture is in training and test both; "" where none is."""
    ids = [leak.test_id for leak in leaks if leak.kind is not LeakKind.QUESTION]
    if not ids:
        return ""
    if len(ids) == test_rows:
        return "measure on rows that are not in training"
    lines: dict[str, list[str]] = defaultdict(list)
    for name, _, line in (id_.rpartition(":") for id_ in ids):
        lines[name].append(line)
    shown = ", ".join(
        f"of {name}: {', '.join(numbers[:_LINES_SHOWN])}"
        + (" and others" if len(numbers) > _LINES_SHOWN else "")
        for name, numbers in lines.items()
    )
    return f"remove these lines from the test rows, {shown}"


@dataclass(frozen=True, slots=True)
class _OfPicture:
    """Training rows of one picture: the first, and the first of each question."""

    first: Example
    by_question: dict[str, Example]


def _add(rows: dict[_Key, _OfPicture], key: _Key, row: Example, question: str) -> None:
    rows.setdefault(key, _OfPicture(row, {})).by_question.setdefault(question, row)


def _leak(row: Example, *, same_picture: list[_OfPicture], by_question: dict[str, Example]) -> Leak | None:
    question = _folded(row.question)
    for rows in same_picture:
        other = rows.by_question.get(question)
        if other is not None:
            return Leak(LeakKind.PAIR, other.id, row.id, f"{Path(row.image).name}: {row.question}")
    if same_picture:
        return Leak(LeakKind.PICTURE, same_picture[0].first.id, row.id, Path(row.image).name)
    if question in by_question:
        return Leak(LeakKind.QUESTION, by_question[question].id, row.id, row.question)
    return None


def _name(example: Example) -> tuple[str, Size]:
    return os.path.basename(example.image), example.picture_size


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _counts(dataset: str, rows: list[Example]) -> DataSetCounts:
    answers = Counter(_folded(row.answer) for row in rows)
    return DataSetCounts(
        dataset=dataset,
        rows=len(rows),
        images=len({row.image for row in rows}),
        boxes=sum(len(row.boxes) for row in rows),
        rows_with_boxes=sum(bool(row.boxes) for row in rows),
        rows_with_no_box=sum(row.boxes_known and not row.boxes for row in rows),
        rows_without_boxes_field=sum(not row.boxes_known for row in rows),
        answers=tuple(sorted(answers.items(), key=lambda item: (-item[1], item[0]))),
    )


def _sizes(images: Sequence[str], watch: Watch | None) -> tuple[dict[str, Size], list[str]]:
    sizes, unreadable = {}, []
    for done, image in enumerate(images, start=1):
        try:
            sizes[image] = Size(*open_picture(image).size)  # the header alone would not tell a truncated file
        except ImageError as error:
            unreadable.append(str(error))
        if watch is not None:
            watch("pictures", done, len(images))
    return sizes, unreadable


def _size_mismatches(examples: Iterable[Example], sizes: dict[str, Size]) -> Iterable[SizeMismatch]:
    for example in examples:
        in_file = sizes.get(example.image)
        if in_file is not None and in_file != example.picture_size:
            harmless = _same_shape(example.picture_size, in_file)
            yield SizeMismatch(example.id, example.image, example.picture_size, in_file, harmless)


def _same_shape(one: Size, other: Size) -> bool:
    """Whether one size is the other scaled, to the rounding of a pixel."""
    scaled_height = other.width * one.height / one.width
    scaled_width = other.height * one.width / one.height
    return (
        abs(scaled_height - other.height) <= _ROUNDING_PIXELS
        or abs(scaled_width - other.width) <= _ROUNDING_PIXELS
    )


def _duplicates(examples: Iterable[Example]) -> Iterable[tuple[str, ...]]:
    ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for example in examples:
        ids[example.image, _folded(example.question)].append(example.id)
    return [tuple(same) for same in ids.values() if len(same) > 1]
