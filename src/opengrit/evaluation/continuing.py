"""Whether an evaluation can continue: its rows, pictures and model are those it asked, or only the annotation changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from opengrit.core.errors import RunError
from opengrit.core.plugins import OWN_CODE, OwnFile
from opengrit.core.types import Example, Record
from opengrit.data.fingerprint import compare, fingerprint
from opengrit.evaluation.rollout import NOT_YET, record_id
from opengrit.runs.data_file import Data, changes_since, important, tell_renamed, tell_unknown
from opengrit.runs.origin import ModelOrigin, read_origin
from opengrit.runs.own_code import own_code_changes
from opengrit.runs.recipe_comparison import listed

ASKED = "asked"  # what the rows of an evaluation are called in its data file


def check_data(folder: Path, data: Data, *, judge_again: bool) -> None:
    """Compare the rows and pictures of now with those that the evaluation in a folder was last continued with.

    A picture of another name and the same content is told and is no reason to refuse.
    Raises RunError where they are others, but for annotation alone with `judge_again`.
    """
    changes = changes_since(folder, data)
    if changes is None:
        tell_unknown(folder)
        return
    only_annotation = all(found.only_annotation for found in changes.values())
    _refuse(folder, important(changes), only_annotation, judge_again=judge_again)
    tell_renamed(changes)


def check_model(folder: Path, now: ModelOrigin) -> None:
    """Raise RunError where the evaluation in a folder asked another model than that of now, whatever they are called."""
    origin = read_origin(folder)
    if origin is None or origin.model is None or not origin.model.is_another(now):
        return
    raise RunError(
        f"an evaluation resumes with the same model, that in {folder} asked {origin.model}, and {now.name!r} is {now} "
        "now; restore that model, or choose another --out for a new evaluation"
    )


def check_own_code(folder: Path, files: Sequence[OwnFile]) -> None:
    """Raise RunError where a file of the user's own is another than that which the evaluation in a folder used."""
    changes = own_code_changes(folder, files)
    if changes:
        raise RunError(
            f"an evaluation resumes with the same code, {folder} used another version ({listed(changes)}; its copy is "
            f"in {folder / OWN_CODE}); restore that version, or choose another --out for a new evaluation"
        )


def check_answered(
    folder: Path, records: Iterable[Record], examples: Sequence[Example], *, samples: int, judge_again: bool
) -> None:
    """Compare the rows of now with those in the records, which is all there is of a run that did not note its data.

    Raises RunError where a record is of another row or of none, but for annotation alone with `judge_again`.
    """
    known = {record.id: record for record in records}
    wanted = {record_id(example, sample=i): example for example in examples for i in range(samples)}
    for name in known:
        if name not in wanted:
            raise RunError(
                f"an evaluation's answers must belong to its questions, {name!r} in {folder} is not among the "
                f"{len(wanted)}; restore the old rows, or choose another --out for a new evaluation"
            )
    differing = {name for name, record in known.items() if _differs(record.example, wanted[name])}
    if not differing:
        return
    now, then = list(examples), list(examples)
    for place, example in enumerate(examples):
        for name in (record_id(example, sample=i) for i in range(samples)):
            if name in differing:
                then[place] = replace(known[name].example, image=example.image)
    changes = compare(*(fingerprint(rows, picture_of=lambda _: None) for rows in (then, now)))
    _refuse(folder, changes.phrases(), changes.only_annotation, judge_again=judge_again)


def with_rows_of_now(record: Record, example: Example) -> Record:
    """A kept record with its row as it is now; not judged yet where its annotation is another one."""
    if record.example == example:
        return record
    if not _differs(record.example, example):
        return replace(record, example=example)  # the picture has another name
    return replace(record, example=example, verdict=NOT_YET)


def _differs(then: Example, now: Example) -> bool:
    return replace(then, image=now.image) != now


def _refuse(folder: Path, found: Sequence[str], only_annotation: bool, *, judge_again: bool) -> None:
    if not found or (only_annotation and judge_again):
        return
    again = "--judge-again to judge the kept answers by the new annotation (nothing is asked again), "
    raise RunError(
        f"an evaluation resumes with the same rows and pictures, {folder} was started with different ones "
        f"({listed(found)}); restore the old ones, {again if only_annotation else ''}or choose another --out for a new "
        "evaluation"
    )
