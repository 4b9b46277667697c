"""What a file of answers holds already: which questions need not be asked, and whether the same model was asked the same way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from opengrit.core.errors import DataError, RunError
from opengrit.core.messages import first_few
from opengrit.data.fingerprint import content_of
from opengrit.runs.origin import ModelKind, ModelOrigin

ASKED = "asked"  # the key of an answer that says how it was asked
_DIGITS = 16  # of a hash


@dataclass(frozen=True, slots=True)
class Row:
    """A question to ask: `image` is the path to open, `image_name` the path as the row writes it.

    `rest` is a hash of the row's other keys, which nothing here reads.
    """

    id: str
    image: str
    image_name: str
    question: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that holds no question, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class HowAsked:
    """The model that is asked (None: not known before it is there) and the settings that decide what it answers."""

    model: ModelOrigin | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of_row(self, row: Row) -> dict[str, Any]:
        """What an answer says of how it was asked; no folder of this machine is in it."""
        model = self.model and {k: v for k, v in asdict(self.model).items() if k != "path" and v is not None}
        return {"model": model, "picture": picture_hash(row), "row": row.rest, **self.settings}


def picture_hash(row: Row) -> str:
    """The start of the SHA-256 of a row's picture, "" where there is none."""
    return (content_of(row.image) or "")[:_DIGITS]


def rest_of(value: Mapping[str, Any]) -> str:
    """A hash of the keys of a row that asking does not read; "" where it has none."""
    rest = {key: one for key, one in value.items() if key not in ("id", "image", "question")}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS] if rest else ""


@dataclass(slots=True)
class Answered:
    """What a file of answers holds: the ids with an answer, and what a user is told about it."""

    ids: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    models: tuple[tuple[int, ModelOrigin], ...] = ()  # that answered, with the first line of each

    def check_model(self, path: Path, now: ModelOrigin) -> None:
        """Raise DataError where another model gave answers in the file."""
        for number, then in self.models:
            if then.is_another(now):
                raise DataError(
                    f"--out holds the answers of one model, line {number} of {path} is by {_told(then)} and the command "
                    f"asks {_told(now)}; ask the same model, or choose another name"
                )


def read_answered(path: Path, rows: Sequence[Row | BadRow], how: HowAsked) -> Answered:
    """What the file answers of these rows.

    Raises DataError where it is a file of something else, or of answers to other questions, about other pictures, of
    another model or asked in another way; RunError where it cannot be read.
    """
    if not os.path.lexists(path):
        return Answered()
    asked = {row.id: row for row in rows if isinstance(row, Row)}
    ids: list[str] = []
    seen: list[str] = []
    models: dict[ModelOrigin, int] = {}
    gone: list[str] = []
    renamed: list[str] = []
    other: list[str] = []
    unknown = 0
    for number, value in _results(path):
        row = asked.get(value["id"])
        seen.append(value["id"])
        if "error" in value:
            continue
        then = value.get(ASKED)
        model = _model_of(value)
        if model is not None:
            models.setdefault(model, number)
        if not isinstance(then, Mapping):
            unknown += 1
        else:
            _check_settings(then, how, place=f"line {number} of {path}")
        if row is None:
            gone.append(value["id"])
            continue
        _check_row(value, row, place=f"line {number} of {path}")
        if value.get("image") != row.image_name:
            renamed.append(row.id)
        if isinstance(then, Mapping) and then.get("row", "") != row.rest:
            other.append(row.id)
        ids.append(row.id)
    found = Answered(frozenset(ids), models=tuple((number, model) for model, number in models.items()))
    if how.model is not None:
        found.check_model(path, how.model)
    notes = [
        (unknown, f"an earlier version wrote {unknown} of the answers in {path} without noting their pictures and settings: "
            "they cannot be checked"),
        (gone, f"{path} has answers to questions that this command does not ask: {first_few(map(repr, gone))}"),
        (renamed, f"the picture has another name but the same content: {first_few(map(repr, renamed))}"),
        (other, f"keys that ask does not read have changed: {first_few(map(repr, other))}"),
        *_order_notes(path, [row.id for row in rows], seen),
    ]  # fmt: skip
    found.notes = tuple(text for counts, text in notes if counts)
    return found


def _order_notes(path: Path, now: Sequence[str], seen: Sequence[str]) -> Iterator[tuple[object, str]]:
    """What is new between the questions that were asked before, and whether these are in another order."""
    place = {name: number for number, name in enumerate(now)}
    known = [name for name in dict.fromkeys(seen) if name in place]
    last = max((place[name] for name in known), default=-1)
    answered = set(known)
    new = [name for name in now[:last] if name not in answered]
    yield new, f"questions were added between those in {path}: {first_few(map(repr, new))}"
    moved = [name for before, name in pairwise(known) if place[name] < place[before]]
    yield (
        moved,
        f"the questions are in another order than their answers in {path}, from {first_few(map(repr, moved))} on",
    )


def _check_row(value: Mapping[str, Any], row: Row, *, place: str) -> None:
    then = value.get(ASKED)
    picture = then.get("picture") if isinstance(then, Mapping) else None
    same_picture = picture == picture_hash(row) if picture else value.get("image") == row.image_name
    if value.get("question") == row.question and same_picture:
        return
    if value.get("question") == row.question and value.get("image") == row.image_name:
        raise DataError(
            f"--out holds answers to the same questions about the same pictures, {row.image} of {row.id!r} has changed "
            f"since {place}; restore the old picture, or choose another name"
        )
    raise DataError(
        f"--out holds answers to the same questions about the same pictures, {row.id!r} was another question in "
        f"{place}; choose another name"
    )


def _check_settings(then: Mapping[str, Any], how: HowAsked, *, place: str) -> None:
    for key, now in how.settings.items():
        if key in then and then[key] != now:
            raise DataError(
                f"--out holds answers to one way of asking, {key} was {then[key]!r} in {place} and is {now!r} now; use "
                "the same setting, or choose another name"
            )


def _model_of(value: Mapping[str, Any]) -> ModelOrigin | None:
    """The model that gave an answer; of an earlier version's, only its name is known."""
    then = value.get(ASKED)
    model = then.get("model") if isinstance(then, Mapping) else None
    try:
        return ModelOrigin(**{**model, "kind": ModelKind(model["kind"])}) if model else _named_only(value)
    except (TypeError, ValueError, LookupError):
        return None


def _named_only(value: Mapping[str, Any]) -> ModelOrigin | None:
    name = value.get("model")
    return ModelOrigin(name, ModelKind.UNKNOWN) if isinstance(name, str) and name else None


def _told(model: ModelOrigin) -> str:
    return repr(model.name) if model.kind is ModelKind.UNKNOWN else str(model)


def _results(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is incomplete
    except OSError as error:
        raise RunError(
            f"--out is a file, {path} cannot be read ({error.strerror}); choose another"
        ) from error
    for number, line in enumerate(lines, start=1):
        value = _result_in(line)
        if value is None:
            raise DataError(
                f"--out is a new file or a file of answers, line {number} of {path} is not an answer; choose another "
                "name"
            )
        yield number, value


def _result_in(line: bytes) -> dict[str, Any] | None:
    """The result that a line holds, whose id is text; None where it holds something else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("id"), str) else None
