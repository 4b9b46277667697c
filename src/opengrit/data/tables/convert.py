"""A table as GRIT's rows: columns found, pictures looked up, answers and boxes brought into GRIT's form, row by row."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.escaping import shortened
from opengrit.core.images import picture_size
from opengrit.core.types import Example
from opengrit.data.doubts import WrittenBox, find_doubts
from opengrit.data.foreign_rows import unwrapped
from opengrit.data.grit import ParsedFile
from opengrit.data.missing import missing_folder
from opengrit.data.problems import Problem
from opengrit.data.rows import Row
from opengrit.data.tables.boxes import Suspicion, as_numbers, boxes_in_cell, in_pixels, suspected
from opengrit.data.tables.columns import SAMPLE, FoundColumns, find_columns
from opengrit.data.tables.files import HUB, open_table
from opengrit.data.tables.pictures import Ambiguous, PictureFolder, content_of_cell, written
from opengrit.data.tables.rows import BoxStyle, RawRow, Table
from opengrit.data.tables.settings import TableSettings
from opengrit.data.tables.shapes import FlatRows, without_placeholders

_ROUNDING_PIXELS = 1.0  # sides of a rescaled picture


@dataclass(frozen=True, slots=True)
class MissingPicture:
    """A picture that is not in the folder, and the row that names it."""

    row: int
    path: str


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A table read to its end: GRIT's rows in `parsed`, and how they were found."""

    parsed: ParsedFile
    columns: FoundColumns
    notes: tuple[str, ...]
    suspicion: Suspicion | None  # of the boxes; among parsed.doubts too
    missing: tuple[MissingPicture, ...]


def read_table(
    spec: str | Path,
    *,
    images: str | Path | None = None,
    settings: TableSettings | None = None,
    embedded: Path | None = None,
) -> ReadTable:
    """Every row of a source as GRIT's, good and bad.

    `images` is the folder that names mean files of (default: that of the source, where only exact paths are looked
    up). Pictures in the source itself are written to `embedded` (default: a folder of the user's cache).

    Raises:
        DataError: the source cannot be read at all, holds no row, or its columns are not known.
    """
    settings = settings or TableSettings()
    if images is not None and not Path(images).is_dir():
        raise missing_folder(spec, images)
    table = open_table(str(spec), settings)
    table = replace(table, rows=FlatRows(table.rows))
    folder = PictureFolder(_folder_of(str(spec), images), searched=images is not None)
    sample = [row.values for row in islice(table.rows, SAMPLE)]
    if not sample:
        reason = f"; the first problem: {table.problems[0]}" if table.problems else "; write one"
        raise DataError(f"a source holds at least one row, {spec} has none{reason}")
    columns = find_columns(sample, settings.columns, folder, source=table.file)
    cell = next((row[columns.picture] for row in sample if row.get(columns.picture)), None)
    converter = _Converter(
        table=table,
        columns=columns,
        folder=folder,
        said=BoxStyle(settings.corners, settings.units),
        embedded=(embedded or picture_cache()) if content_of_cell(_only(cell)) is not None else None,
    )
    return converter.read()


def picture_cache() -> Path:
    """The folder of the user's cache that pictures out of tables are written to."""
    base = os.environ.get("OPENGRIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "opengrit" / "pictures"


def _folder_of(spec: str, images: str | Path | None) -> Path:
    if images is not None:
        return Path(images)
    return Path() if spec.startswith(HUB) else Path(spec).parent


@dataclass(slots=True)
class _Converter:
    """What is known of a whole table, and what its rows add to."""

    table: Table
    columns: FoundColumns
    folder: PictureFolder
    said: BoxStyle
    embedded: Path | None  # None: pictures are files of the folder
    problems: list[Problem] = field(default_factory=list)
    missing: list[MissingPicture] = field(default_factory=list)
    boxes: list[WrittenBox] = field(default_factory=list)  # as written
    style: BoxStyle = field(default_factory=BoxStyle)  # of the last row: tables do not mix them
    sizes: dict[str, Size] = field(default_factory=dict)  # of pictures that were opened, by their path

    def read(self) -> ReadTable:
        examples, count = [], len(self.table.problems)
        for raw in self.table.rows:
            count += 1
            example = self._example(raw)
            if example is not None:
                examples.append(example)
        suspicion = suspected(self.boxes, self.style)
        doubts = find_doubts(examples, ())
        problems = sorted((*self.table.problems, *self.problems), key=lambda problem: problem.line)
        parsed = ParsedFile(
            file=self.table.file,
            rows=count,
            examples=tuple(examples),
            problems=tuple(problems),
            folder=str(self.embedded or self.folder.root),
            missing=tuple(one.path for one in self.missing),
            doubts=(*([suspicion.doubt()] if suspicion else []), *doubts),
        )
        return ReadTable(parsed, self.columns, self.table.notes, suspicion, tuple(self.missing))

    def _example(self, raw: RawRow) -> Example | None:
        file = self.table.file
        named = Path(Path(file).name.partition(":")[0]).stem  # without the split of "owner/name:train"
        row = Row(file=file, line=raw.number, root=self.embedded or self.folder.root, dataset=named)
        fields = self._fields(raw, row)
        example = None if row.problems else row.from_fields(fields)
        if row.missing is not None:
            self.missing.append(MissingPicture(raw.number, row.missing))
        columns = {
            "image": self.columns.picture,
            "question": self.columns.question,
            "answer": self.columns.answer,
        }
        for problem in row.problems:
            column = columns.get(problem.field)
            where = (
                f"{problem.field} (column {column})" if column not in (None, problem.field) else problem.field
            )
            self.problems.append(replace(problem, field=where))
        return example

    def _fields(self, raw: RawRow, row: Row) -> dict[str, Any]:
        """The row under GRIT's names; what is wrong with its picture or boxes is noted in `row`."""
        values, columns = raw.values, self.columns
        self.style = style = self.said.over(raw.style)
        fields: dict[str, Any] = {"image": self._image(_only(values.get(columns.picture)), row)}
        for name, column in (("question", columns.question), ("answer", columns.answer)):
            if values.get(column) in (None, "", []):
                row.error(name, "is blank; fill it in")
        question = values.get(columns.question)
        fields["question"] = without_placeholders(question) if isinstance(question, str) else question
        answer, also = _answers(values.get(columns.answer))
        if columns.also_accepted is not None:
            also += _alternatives(values.get(columns.also_accepted))
        size = self._size(fields["image"], row)
        stated = _stated_size(values, size, row) if size is not None else None
        numbers = as_numbers(answer)
        if numbers is not None and size is not None:
            answer = self._box(answer, style, size, stated, raw.number)
        fields["answer"] = answer
        if also:
            fields["also_accepted"] = also
        boxes = None if columns.boxes is None else boxes_in_cell(values.get(columns.boxes))
        if boxes is not None:
            fields["bboxs"] = boxes
            if isinstance(boxes, list) and size is not None:
                fields["bboxs"] = [self._box(box, style, size, stated, raw.number) for box in boxes]
        for name in ("key_words", "dataset", "split"):
            if values.get(name) not in (None, "") and name not in (columns.question, columns.answer):
                fields[name] = values[name]
        return fields | ({"width": size.width, "height": size.height} if size is not None else {})

    def _box(self, box: Any, style: BoxStyle, size: Size, stated: Size | None, number: int) -> Any:
        """The box in pixels of the picture; `stated` is the size that the table's pixels are of, if it is another."""
        numbers = as_numbers(box)
        frame = stated if stated is not None and style.units in (None, "pixels") else size
        if numbers is None:
            return box
        if isinstance(box, list):  # one with names of its own says what it is
            self.boxes.append(WrittenBox(number, numbers, frame))
        pixels = in_pixels(box, style, frame)
        across, down = size.width / frame.width, size.height / frame.height
        scaled = (round(value * scale, 4) for value, scale in zip(pixels, (across, down) * 2, strict=True))
        return [int(value) if value.is_integer() else value for value in scaled]

    def _image(self, value: Any, row: Row) -> Any:
        if self.embedded is not None:
            found = content_of_cell(value)
            if found is None:
                row.error(
                    "image",
                    f"a table's pictures are all in the table or all in a folder, got {_shown(value)}; make them alike",
                )
                return ""
            try:
                return written(*found, self.embedded)
            except DataError as error:
                row.error("image", str(error))
                return ""
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            value = value["path"]
        if isinstance(value, list):
            row.error("image", f"a row has one picture, got {len(value)}; write a row for each")
            return ""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip("./\\ "):
            row.error("image", f"must be the name of a picture, got {_shown(value)}; write the file's name")
            return ""
        try:
            found_name = self.folder.find(str(value))
        except Ambiguous as error:
            row.error(
                "image",
                f"a name must mean one file, {_shown(value)} means {error} in {self.folder.root}; write its path",
            )
            return ""
        if found_name is not None:
            return found_name
        name = str(value).replace("\\", "/")
        return name if "://" in name else name.rpartition("/")[2]

    def _size(self, image: Any, row: Row) -> Size | None:
        """The picture's own size; None where the row's own check says what is wrong with it."""
        path = str(row.root / str(image))
        if not image or "://" in str(image):
            return None
        if path in self.sizes:
            return self.sizes[path]
        if not os.path.isfile(path):
            row.missing = path
            return None
        try:
            self.sizes[path] = picture_size(path)
        except ImageError as error:
            row.error("image", str(error))
            return None
        return self.sizes[path]


def _stated_size(values: Mapping[str, Any], size: Size, row: Row) -> Size | None:
    """The size that a row says its picture has, where that is another of the same shape; an error where the shape differs."""
    try:
        width, height = (float(values.get(side) or 0) for side in ("width", "height"))
    except (TypeError, ValueError):
        return None
    if width < 1 or height < 1 or (width, height) == (size.width, size.height):
        return None
    off = abs(width * size.height - height * size.width)
    if off > _ROUNDING_PIXELS * max(width + size.width, height + size.height):
        row.error(
            "width",
            f"a picture must have its row's size, it is {size.width} x {size.height} and the row says {width:g} x "
            f"{height:g}; use the picture that was annotated, or leave width and height out",
        )
        return None
    return Size(int(width), int(height))


def _answers(value: Any) -> tuple[Any, list[Any]]:
    """A cell's answer and the others that it says are right too."""
    if isinstance(value, str):
        text = value.strip()
        bare = unwrapped(text)
        text = text if bare is None else bare
        listed = _listed(text) if text.startswith("[") else None
        if listed is None:
            return text, []
        value = listed
    if (
        isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ):  # VQA's ten annotators
        texts = [item.get("answer", item.get("text")) for item in value]
        value = [text for text, _ in Counter(text for text in texts if isinstance(text, str)).most_common()]
    if isinstance(value, list) and value and any(isinstance(item, str) for item in value):
        return value[0], value[1:]
    return value, []


def _alternatives(value: Any) -> list[Any]:
    if isinstance(value, str):
        listed = _listed(value.strip()) if value.strip().startswith("[") else None
        return [part.strip() for part in value.split("|") if part.strip()] if listed is None else listed
    return value if isinstance(value, list) else [] if value is None else [value]


def _listed(text: str) -> list[Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _only(value: Any) -> Any:
    """The one picture of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _shown(value: Any) -> str:
    return shortened(repr(value))
