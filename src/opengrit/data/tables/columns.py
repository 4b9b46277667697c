"""Which column of a table holds what: named by the user, else found by its name and by what is in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opengrit.core.errors import DataError
from opengrit.core.escaping import shortened
from opengrit.core.messages import nearest
from opengrit.data.foreign_rows import FOREIGN
from opengrit.data.tables.boxes import as_numbers, boxes_in_cell
from opengrit.data.tables.pictures import Ambiguous, PictureFolder, content_of_cell
from opengrit.data.tables.settings import Columns

SAMPLE = 200  # rows that columns are found by
_MOST = 0.8  # of a column's values
_HALF = 0.5
_LONGEST_ANSWER = 60  # characters: what is longer is no answer that a table is searched for

# GRIT's own names, and more that people use; those of other trainers are in `foreign_rows`.
_OWN = {
    "picture": "image",
    "question": "question",
    "answer": "answer",
    "boxes": "bboxs",
    "also_accepted": "also_accepted",
}
_MORE = {
    "picture": ("picture", "pictures", "photo", "photos", "pic", "file", "path", "image_name", "photo_file", "picture_file"),
    "question": ("questions", "ask"),
    "answer": ("count", "number", "correct_answer", "right_answer", "expected", "truth"),
    "boxes": ("box", "gt_boxes", "bounding_box", "bounding_boxes"),
    "also_accepted": ("accepted", "alternatives", "other_answers"),
}  # fmt: skip
_FIELDS = {
    part: {_OWN[part], *_MORE[part], *(key.key for key in FOREIGN if _OWN[part] in key.fields)}
    for part in _OWN
}


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """The columns of a table by what they hold."""

    picture: str
    question: str
    answer: str
    boxes: str | None = None
    also_accepted: str | None = None

    def __str__(self) -> str:
        parts = {part: getattr(self, part) for part in _OWN}
        return ", ".join(f"{part}={column}" for part, column in parts.items() if column is not None)


def find_columns(
    rows: Sequence[Mapping[str, Any]], asked: Columns, pictures: PictureFolder, *, source: str
) -> FoundColumns:
    """The columns of some rows; `asked` are those named by the user, `source` is what messages call the table.

    Raises:
        DataError: a named column is not there, none is found for a picture, a question or an answer, or several are.
    """
    search = _Search(rows, pictures, source)
    found = {
        part: search.named(part, column) for part, column in asked.model_dump().items() if column is not None
    }
    for part in _OWN:
        if part not in found and (column := search.by_name(part, taken=found.values())) is not None:
            found[part] = column
    for part in ("picture", "question", "answer"):
        if part not in found:
            found[part] = search.by_content(part, found)
    return FoundColumns(**found)


@dataclass(frozen=True, slots=True)
class _Search:
    rows: Sequence[Mapping[str, Any]]
    pictures: PictureFolder
    source: str

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def named(self, part: str, column: str) -> str:
        """The column that the user named, spelt as in the table."""
        same = [name for name in self.columns if name == column] or [
            name for name in self.columns if _plain(name) == _plain(column)
        ]
        if len(same) == 1:
            return same[0]
        near = nearest(column, self.columns)
        remedy = f"did you mean {part}={near}?" if near else f"it has {self._listed(self.columns)}"
        raise DataError(
            f"a named column must be in the table, {column!r} ({part}) is not in {self.source}; {remedy}"
        )

    def by_name(self, part: str, *, taken: Iterable[str]) -> str | None:
        free = [name for name in self.columns if name not in set(taken)]
        named = [name for name in free if _plain(name) in _FIELDS[part]]
        own = [name for name in named if _plain(name) == _OWN[part]]
        fitting = [name for name in named if self._holds(part, name)]
        if len(own) == 1 and (own[0] in fitting or not fitting):
            return own[0]
        if part == "boxes":  # a column of another meaning is no mistake: no boxes are asked for
            named = fitting
        choice = fitting if len(fitting) == 1 else named
        if len(choice) > 1:
            raise DataError(
                f"only one column can hold the {part}, {self.source} has {self._listed(choice)}; choose one with "
                f"--columns {part}={_quoted(choice[0])} ({_in_recipe(part, choice[0])})"
            )
        return choice[0] if choice else None

    def by_content(self, part: str, found: Mapping[str, str]) -> str:
        """The one column left whose values are of the kind. Raises DataError where none is, or several are."""
        free = [name for name in self.columns if name not in set(found.values())]
        fitting = [name for name in free if self._holds(part, name)]
        if len(fitting) == 1:
            if part == "picture" and self._is_picture(fitting[0]):
                raise DataError(
                    f"the first row of a table names its columns, that of {self.source} holds {fitting[0]!r}, a picture "
                    f"of {self.pictures.root}; write a row of names above it, or declare it a name with --columns "
                    f"picture={_quoted(fitting[0])}"
                )
            return fitting[0]
        several = f"{self._listed(fitting)} could be" if fitting else "none is found"
        example = _quoted((fitting or free or ["COLUMN"])[0])
        known = ", ".join(f"{one}={column}" for one, column in found.items())
        raise DataError(
            f"a table has a column for the {part}, in {self.source} {several} (columns: {self._listed(self.columns)}"
            f"{'; found: ' + known if known else ''}); name it with --columns {part}={example} ({_in_recipe(part, example)})"
            + (
                f", or give the folder of the pictures with --images, not {self.pictures.root}"
                if part == "picture"
                else ""
            )
        )

    def _holds(self, part: str, column: str) -> bool:
        values = [row[column] for row in self.rows if row.get(column) not in (None, "", [])]
        tests: dict[str, tuple[Callable[[Any], bool], float]] = {
            "picture": (self._is_picture, _HALF),
            "question": (_is_question, _HALF),
            "answer": (_is_answer, _MOST),
            "boxes": (_are_boxes, _MOST),
            "also_accepted": (lambda value: isinstance(value, str | list), _MOST),
        }
        test, share = tests[part]
        return bool(values) and sum(map(test, values)) >= share * len(values)

    def _is_picture(self, value: Any) -> bool:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if content_of_cell(value) is not None:
            return True
        if isinstance(value, dict):
            value = value.get("path")
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        try:
            return self.pictures.find(str(value)) is not None
        except Ambiguous:
            return True

    def _listed(self, names: Sequence[str]) -> str:
        return shortened(", ".join(names), 300)


def _is_question(value: Any) -> bool:
    return isinstance(value, str) and " " in value.strip() and value.rstrip().endswith(("?", "？", "؟"))


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value)
    return isinstance(value, int | float) or (
        isinstance(value, str) and len(value) <= _LONGEST_ANSWER and not value.rstrip().endswith("?")
    )


def _are_boxes(value: Any) -> bool:
    found = boxes_in_cell(value)
    return isinstance(found, list) and all(as_numbers(box) is not None for box in found)


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().casefold()).strip("_")


def _in_recipe(part: str, column: str) -> str:
    return f"in a recipe, and in --data '{{file: ..., ...}}', columns: {{{part}: {column}}}"


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w.-]", name) else name
