"""The doctor on the data: rows, pictures, answers, rewards that apply, and what training and evaluation share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from opengrit.core.errors import DataError, RecipeError
from opengrit.core.messages import first_few
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.data.check import FileCheck, LeakKind, check_reading, find_leaks, remedy_for_leaks
from opengrit.data.grit import ParsedFile
from opengrit.data.sources import read_source
from opengrit.data.tables import files_of
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding, split_message
from opengrit.recipes.data_section import Source

_AREA = Area.DATA
_TINY = 28  # pixels: what a patch of the vision tower covers
_FEW_ROWS = 8
_LOPSIDED = 0.8  # of the rows have one answer
_EVAL_PICTURES = 32  # decoded of each evaluation set; the whole set is for `opengrit data check`


def examine_data(context: Context) -> Iterator[Finding]:
    """Every training row and picture, a share of the evaluation's, and leaks between them."""
    recipe = context.recipe
    readings, failures = _readings(recipe.data.train)
    yield from _unreadable(failures, "to train on", fails=True)
    for reading in readings:
        context.examples += reading.examples
        context.unsized += len(reading.missing)
        yield from _problems(reading)
        yield from _pictures(check_reading(reading, pictures=True))
    readings, failures = _readings(recipe.data.eval)
    yield from _unreadable(failures, "to measure with", fails=recipe.train.eval_steps is not None)
    for reading in readings:
        context.evaluated += reading.examples
        yield from _problems(reading)
        few = reading.examples[:: max(1, len(reading.examples) // _EVAL_PICTURES)]
        sample = replace(reading, rows=len(few), examples=few, problems=(), doubts=())
        yield from _pictures(check_reading(sample, pictures=True))
    if context.examples:
        yield from _rows(context)
        yield from _answers(context.examples)
        yield from _rewards(context)
        yield from _leaks(context)


def _readings(sources: Sequence[Source]) -> tuple[list[ParsedFile], list[DataError]]:
    """The data sets that can be read to their end, and why the others cannot."""
    readings, failures = [], []
    for source in sources:
        try:
            readings.append(_reading(source))
        except DataError as error:
            failures.append(error)
    return readings, failures


def _unreadable(failures: Sequence[DataError], purpose: str, *, fails: bool) -> Iterator[Finding]:
    if not failures:
        return
    found, remedy = split_message(str(failures[0]))
    if len(failures) > 1:
        found = f"{len(failures)} data sets {purpose} cannot be read; the first: {found}"
    yield _AREA.graded("rows", found, remedy, fails=fails, warns=True)


def _reading(source: Source) -> ParsedFile:
    """A data set, good rows and bad. Raises DataError where it cannot be read at all."""
    if source.file is not None and files_of(source.file) == [source.file]:
        return read_source(source.file, source.images, table=source.table)
    examples = load_examples(source.spec, source.images, table=source.table)
    return ParsedFile(source.spec, len(examples), tuple(examples), ())


def _problems(reading: ParsedFile) -> Iterator[Finding]:
    if reading.errors:
        lines = len({problem.line for problem in reading.errors})
        name = "boxes" if all(p.field.startswith("bboxs") for p in reading.errors) else "rows"
        found, remedy = split_message(str(reading.errors[0]))
        yield _AREA.fail(
            name,
            f"{lines} of {reading.rows} rows of {reading.file} cannot be used; the first: {found}",
            f"{remedy}; opengrit data check lists them all",
        )
    if reading.warnings:
        found, remedy = split_message(str(reading.warnings[0]))
        yield _AREA.warn("boxes", f"{len(reading.warnings)} rows were repaired; the first: {found}", remedy)
    for doubt in reading.doubts:
        found, remedy = split_message(str(doubt))
        yield _AREA.warn("doubts", f"{reading.file}: {found}", remedy)


def _pictures(found: FileCheck) -> Iterator[Finding]:
    if found.missing_images:
        yield _AREA.fail(
            "pictures",
            f"{len(found.missing_images)} of {found.unique_images} pictures of {found.file} are not in "
            f"{found.folder or 'their folder'}: {first_few(found.missing_images, most=2, longest=200)}",
            found.remedy_for_pictures,
        )
    if found.unreadable_images:
        reason, remedy = split_message(found.unreadable_images[0])
        yield _AREA.fail(
            "pictures",
            f"{len(found.unreadable_images)} of {found.unique_images} pictures of {found.file} do not open; "
            f"the first: {reason}",
            remedy,
        )
    other = [mismatch for mismatch in found.size_mismatches if not mismatch.harmless]
    if other:
        first = other[0]
        yield _AREA.warn(
            "picture sizes",
            f"{len(other)} rows of {found.file} name another shape than their picture's, so their boxes are misplaced: "
            f"{first.id} says {first.in_row.width} x {first.in_row.height}, the file is {first.in_file.width} x "
            f"{first.in_file.height}",
            "correct width and height, and the boxes with them",
        )
    if found.duplicates:
        yield _AREA.warn(
            "duplicates",
            f"{len(found.duplicates)} questions of {found.file} occur twice for the same picture: "
            f"{first_few(found.duplicates[0])}",
            "keep one of each, or they count twice",
        )


def _rows(context: Context) -> Iterator[Finding]:
    examples = context.examples
    twice = [name for name, n in Counter(example.id for example in examples).items() if n > 1]
    if twice:
        yield _AREA.fail(
            "ids",
            f"{len(twice)} ids appear more than once among the training rows: {first_few(twice)}",
            "name each file once, and rename files that have the same name in different folders",
        )
    asked = context.recipe.train.questions_per_step
    if len(examples) + context.unsized < asked:
        yield _AREA.fail(
            "questions per step",
            f"a step asks {asked} different questions, and there are {len(examples) + context.unsized} rows",
            context.recipe.train.remedy_for(
                len(examples) + context.unsized, num_processes=context.environment.machine.devices
            ),
        )
    elif len(examples) + context.unsized < _FEW_ROWS:
        yield _AREA.warn(
            "rows",
            f"{len(examples)} rows are few: the model can memorise them",
            "GRIT learns from 20; add rows of different kinds",
        )
    small = [e.image for e in examples if min(e.picture_size.width, e.picture_size.height) < _TINY]
    if small:
        yield _AREA.warn(
            "tiny pictures",
            f"{len(small)} rows have a picture with a side below {_TINY} pixels, less than one patch of the model: "
            f"{first_few(small, most=1)}",
            "give larger pictures, or leave these rows out",
        )
    boxed = sum(bool(example.boxes) for example in examples)
    pictures = len({example.image for example in examples})
    yield _AREA.ok(
        "rows", f"{len(examples)} training rows about {pictures} pictures, {boxed} with boxes; "
        f"{len(context.evaluated)} rows to measure with"
    )  # fmt: skip


def _answers(examples: Sequence[Example]) -> Iterator[Finding]:
    answers = Counter(" ".join(example.answer.casefold().split()) for example in examples)
    (answer, most), *_ = answers.most_common(1)
    if len(answers) == 1 and len(examples) > 1:
        yield _AREA.fail(
            "answers",
            f"the answer to every training row is {answer!r}: a model is rewarded without looking",
            "add rows with other answers",
        )
    elif most > _LOPSIDED * len(examples):
        yield _AREA.warn(
            "answers",
            f"the answer to {most} of {len(examples)} training rows is {answer!r}: always giving it nearly suffices",
            "balance the answers",
        )
    else:
        yield _AREA.ok(
            "answers", f"{len(answers)} different answers, the most frequent {answer!r} in {most} rows"
        )


def _rewards(context: Context) -> Iterator[Finding]:
    rubric = context.rubric
    if rubric is None:
        yield _AREA.skipped("rewards", "your own code cannot be used: see above")
        return
    try:
        rubric.check(context.examples)
    except RecipeError as error:
        yield _AREA.error("rewards", error)
        return
    yield _AREA.ok("rewards", "each applies to some row: " + ", ".join(rubric.weights))


def _leaks(context: Context) -> Iterator[Finding]:
    if not context.evaluated:
        yield _AREA.ok("leaks", "data.eval names no data set; measure with opengrit eval before and after")
        return
    leaks = find_leaks(context.examples, context.evaluated)
    grave = [leak for leak in leaks if leak.kind is not LeakKind.QUESTION]
    if grave:
        yield _AREA.fail(
            "leaks",
            f"{len(grave)} of {len(context.evaluated)} evaluation rows show a training picture, so evaluation would "
            f"reward having seen it: {grave[0].test_id} and {grave[0].train_id} ({grave[0].shared})",
            remedy_for_leaks(leaks, test_rows=len(context.evaluated)),
        )
        return
    yield _AREA.ok("leaks", "no picture is in both training and evaluation")
