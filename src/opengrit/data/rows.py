"""One line of GRIT's JSONL: the example it holds, and everything that is wrong with it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.escaping import encodable, shortened
from opengrit.core.images import confined, picture_size
from opengrit.core.messages import nearest
from opengrit.core.types import Example
from opengrit.data.doubts import WrittenBox
from opengrit.data.file_format import DuplicateKey, unique_keys
from opengrit.data.foreign_rows import PLACEHOLDER, advice, boxes_in, unwrapped
from opengrit.data.problems import Problem, Severity
from opengrit.data.row_boxes import read_boxes, written_boxes
from opengrit.data.row_values import finite, kind_of, shown

_REQUIRED = ("question", "answer", "image")
_FIELDS = (*_REQUIRED, "width", "height", "bboxs", "dataset", "split", "key_words", "also_accepted")
_LARGEST_SIDE = 1_000_000


@dataclass(slots=True)
class Row:
    """One line on its way to an example; collects what is wrong with it."""

    file: str
    line: int
    root: Path
    dataset: str  # where the row names none
    problems: list[Problem] = field(default_factory=list)
    missing: str | None = None  # the picture that the size was to come from, and that is not there
    boxes: list[WrittenBox] = field(default_factory=list)  # as written, of four numbers
    confined: dict[str, str] = field(
        default_factory=dict
    )  # paths of pictures looked up before; a file's rows share it

    def error(self, name: str, message: str) -> None:
        self.problems.append(Problem(self.file, self.line, name, message))

    def warn(self, name: str, message: str) -> None:
        self.problems.append(Problem(self.file, self.line, name, message, Severity.WARNING))

    def example(self, raw: bytes) -> Example | None:
        """The row's example, or None where a problem forbids one."""
        row = self._decode(raw)
        if row is None:
            return None
        self._check_names(row)
        return self.from_fields(row)

    def from_fields(self, row: dict[str, Any]) -> Example | None:
        """The example of a row's fields by name, or None where a problem forbids one."""
        question = self._question(row) if "question" in row else ""
        answer = self._answer(row["answer"]) if "answer" in row else ""
        image = self._image(row["image"]) if "image" in row else ""
        size = self._size(row, image)
        boxes = read_boxes(row["bboxs"], size, self) if "bboxs" in row else ()
        self.boxes += written_boxes(row.get("bboxs"), size, line=self.line)
        key_words = self._key_words(row.get("key_words"))
        dataset = self._text(row, "dataset") if "dataset" in row else self.dataset
        split = self._text(row, "split") if row.get("split") is not None else None
        others = self._also_accepted(row.get("also_accepted"))
        if size is None or any(p.severity is Severity.ERROR for p in self.problems):
            return None
        return Example(
            id=f"{os.path.splitext(os.path.basename(self.file))[0]}:{self.line}",
            question=question,
            answer=answer,
            image=image,
            dataset=dataset,
            picture_size=size,
            boxes=boxes,
            boxes_known="bboxs" in row,
            key_words=key_words,
            split=split,
            also_accepted=tuple(dict.fromkeys(other for other in others if other != answer)),
        )

    def _decode(self, raw: bytes) -> dict[str, Any] | None:
        try:
            row = _DECODER.decode(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            self.error("", f"a row is UTF-8, byte {error.start} of this line is not; save the file as UTF-8")
            return None
        except DuplicateKey as error:
            self.error(error.key, "a field occurs once in a row, this one occurs twice; keep the right one")
            return None
        except json.JSONDecodeError as error:
            self.error(
                "",
                f"a row is one JSON object, this line is not JSON ({error.msg} at column {error.colno}); fix it",
            )
            return None
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits, brackets thousands deep
            self.error("", f"a row is one small JSON object, this line cannot be read ({error}); fix it")
            return None
        if not isinstance(row, dict):
            self.error("", f"a row is a JSON object, this line is {kind_of(row)}; write {{...}}")
            return None
        return row

    def _check_names(self, row: dict[str, Any]) -> None:
        if any(name not in row for name in _REQUIRED) and (foreign := advice(row, required=_REQUIRED)):
            self.error("", foreign)
            return
        for name in _REQUIRED:
            if name not in row:
                near = _near(name, row)
                hint = f'rename "{shortened(near)}"' if near else "add it"
                self.error(name, f"every row needs this field, this one does not have it; {hint}")
        for name in [name for name in row if name not in _FIELDS]:
            meant = _meant(name)
            if meant and meant not in row and meant not in _REQUIRED:
                self.warn(
                    name,
                    f'GRIT\'s rows have no such field, it is ignored; rename it "{meant}" if you meant that',
                )
            elif "bboxs" not in row and (how := boxes_in(name)):
                self.warn(name, f"GRIT's rows have no such field, it is ignored; {how}")

    def _text(self, row: dict[str, Any], name: str) -> str:
        value = row[name]
        if not isinstance(value, str) or not value.strip():
            shown = "an empty string" if value == "" else kind_of(value)
            self.error(name, f"must be a non-empty string, got {shown}; write the text in quotes")
            return ""
        if not encodable(value):
            self.error(
                name,
                "must be whole Unicode characters, got half of a surrogate pair; write the character itself",
            )
            return ""
        return value

    def _question(self, row: dict[str, Any]) -> str:
        question = self._text(row, "question")
        placeholder = PLACEHOLDER.search(question)
        if placeholder:
            self.error(
                "question",
                f"must have no picture placeholder (the program inserts the picture), got {placeholder[0]!r}; remove it "
                "from the question",
            )
        return question

    def _answer(self, value: Any, name: str = "answer") -> str:
        if isinstance(value, str):
            answer = self._text({name: value}, name)
            bare = unwrapped(answer)
            if bare is not None:
                written = json.dumps(shortened(bare), ensure_ascii=False)
                remedy = f"write {written}" if bare else "take the tags off"
                self.error(name, f"must be only the answer, got {shown(answer)}; {remedy}")
            return answer
        if isinstance(value, bool) or value is None or isinstance(value, dict):
            self.error(
                name,
                f'must be a string, a number or a list of numbers, got {kind_of(value)}; write "Yes", for example',
            )
            return ""
        if isinstance(value, list):
            if not value or any(finite(item) is None for item in value):
                self.error(
                    "answer",
                    "a list in an answer holds numbers (a box), this one does not; write one string, and other right "
                    'answers as the list "also_accepted"',
                )
                return ""
            return str(value)
        number = finite(value)
        if number is None:
            self.error(name, f"must be a finite number, got {shown(value)}; write the number")
            return ""
        return str(int(number)) if number.is_integer() else str(value)

    def _also_accepted(self, value: Any) -> list[str]:
        """The other answers that are right too, each written as an answer is."""
        if value is None:
            return []
        if not isinstance(value, list) or any(isinstance(item, list) for item in value):
            self.error(
                "also_accepted",
                f'must be a list of strings or numbers, got {shown(value)}; write ["two", "a pair"], for example',
            )
            return []
        return [self._answer(item, "also_accepted") for item in value]

    def _image(self, value: Any) -> str:
        if not isinstance(value, str):
            self.error(
                "image",
                f"must be the relative path of a picture, got {kind_of(value)}; write the file's name",
            )
            return ""
        if value in self.confined:
            return self.confined[value]
        if hint := _no_path(value):
            self.error("image", f"must be the relative path of a picture, got {hint}")
            return ""
        path = value
        if "\\" in value and not (self.root / value).exists():  # written on Windows
            path = value.replace("\\", "/")
        try:
            return self.confined.setdefault(value, str(confined(path, self.root)))
        except DataError as error:
            self.error("image", str(error))
            return ""

    def _size(self, row: dict[str, Any], image: str) -> Size | None:
        if "width" not in row and "height" not in row:
            return self._size_from_file(image)
        sides = []
        for name in ("width", "height"):
            number = finite(row.get(name))
            if number is None or not number.is_integer() or not 1 <= number <= _LARGEST_SIDE:
                given = row.get(name, "nothing")
                self.error(
                    name,
                    f"must be a whole number of pixels from 1 to {_LARGEST_SIDE}, got {shown(given)}; write the "
                    "picture's size",
                )
            else:
                sides.append(int(number))
        return Size(*sides) if len(sides) == 2 else None

    def _size_from_file(self, image: str) -> Size | None:
        if not image:
            return None
        if not os.path.isfile(image):  # told once for all rows
            self.missing = image
            return None
        try:
            return picture_size(image)
        except ImageError as error:
            self.error("width", f"a row without width and height takes them from its picture, but {error}")
            return None

    def _key_words(self, value: Any) -> tuple[str, ...]:
        words = [value] if isinstance(value, str) else value
        if words is None:
            return ()
        if not isinstance(words, list) or not all(isinstance(w, str) and encodable(w) for w in words):
            self.error(
                "key_words",
                f"must be a string or a list of strings, got {shown(value)}; write the counted noun",
            )
            return ()
        return tuple(w for w in words if w.strip())


_BASE64 = re.compile(r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-9A-Za-z+/])[0-9A-Za-z+/=\s]{100,}")


def _no_path(image: str) -> str:
    """What an image field holds instead of a path, and what to do; "" for what may be a path."""
    if image.startswith("data:") or _BASE64.match(image):
        return f"the picture itself as {len(image)} characters; save it as a file and write the file's name"
    scheme, colon, _ = image.partition("://")
    if not colon:
        return ""
    if scheme.lower() == "file":
        return f"the address {shown(image)}; write the path below the picture folder, without file://"
    return f"the address {shown(image)}; download it into the picture folder and write the file's name"


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


@lru_cache(maxsize=1024)  # a file's rows have the same fields
def _meant(name: str) -> str | None:
    return nearest(name.lower(), _FIELDS, alike=0.8)  # a row may have fields of its own


def _near(name: str, row: dict[str, Any]) -> str | None:
    strangers = {key.lower(): key for key in row if key not in _FIELDS}
    found = nearest(name, strangers)
    return strangers[found] if found else None
