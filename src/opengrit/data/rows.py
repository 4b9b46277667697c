"""One line of GRIT's JSONL: the example it holds, and everything that is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.escaping import encodable, shortened
from opengrit.core.images import confined, picture_size
from opengrit.core.types import Example
from opengrit.data.doubts import WrittenBox, fits_as_width
from opengrit.data.file_format import DuplicateKey, unique_keys
from opengrit.data.foreign_rows import PLACEHOLDER, advice, boxes_in, unwrapped

# Annotators number pixels from 0 or from 1 and include the last one or not, so one pixel of overhang is custom.
CUSTOMARY_OVERHANG_PIXELS = 1.0
# A box that overhangs by more than this share of the picture's side is in another frame, or another picture's.
LARGEST_OVERHANG_SHARE = 0.05

_REQUIRED = ("question", "answer", "image")
_FIELDS = (*_REQUIRED, "width", "height", "bboxs", "dataset", "split", "key_words", "also_accepted")
_LARGEST_SIDE = 1_000_000


class Severity(Enum):
    """Whether a row can be used in spite of a problem."""

    ERROR = "error"  # the row cannot be used, loading fails
    WARNING = "warning"  # the row is used, after the repair the message names


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of one row. `line` starts at 1; `field` is "" where the whole line is meant."""

    file: str
    line: int
    field: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f": {shortened(self.field)}" if self.field else "")
        return f"{place}: {self.message}"


def told_once(problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """Each different problem, as the first row has it, and its sentence with all other lines that have it too."""
    alike: dict[tuple[Severity, str, str], list[Problem]] = {}
    for problem in problems:
        field_name = re.sub(r"\[\d+\]", "", problem.field)
        alike.setdefault((problem.severity, field_name, problem.message), []).append(problem)
    sentences = []
    for first, *more in alike.values():
        lines = sorted({problem.line for problem in more} - {first.line})
        many = "lines have" if len(lines) > 1 else "line has"
        same = f" ({len(lines)} more {many} the same problem: {_ranges(lines)})" if lines else ""
        sentences.append((first, f"{first}{same}"))
    return sentences


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers, those in a row as their first and last: 2, 5-9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


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
        boxes = self._boxes(row["bboxs"], size) if "bboxs" in row else ()
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
            self.error("", f"a row is a JSON object, this line is {_kind(row)}; write {{...}}")
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
            shown = "an empty string" if value == "" else _kind(value)
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
                self.error(name, f"must be only the answer, got {_shown(answer)}; {remedy}")
            return answer
        if isinstance(value, bool) or value is None or isinstance(value, dict):
            self.error(
                name,
                f'must be a string, a number or a list of numbers, got {_kind(value)}; write "Yes", for example',
            )
            return ""
        if isinstance(value, list):
            if not value or any(_finite(item) is None for item in value):
                self.error(
                    "answer",
                    "a list in an answer holds numbers (a box), this one does not; write one string, and other right "
                    'answers as the list "also_accepted"',
                )
                return ""
            return str(value)
        number = _finite(value)
        if number is None:
            self.error(name, f"must be a finite number, got {_shown(value)}; write the number")
            return ""
        return str(int(number)) if number.is_integer() else str(value)

    def _also_accepted(self, value: Any) -> list[str]:
        """The other answers that are right too, each written as an answer is."""
        if value is None:
            return []
        if not isinstance(value, list) or any(isinstance(item, list) for item in value):
            self.error(
                "also_accepted",
                f'must be a list of strings or numbers, got {_shown(value)}; write ["two", "a pair"], for example',
            )
            return []
        return [self._answer(item, "also_accepted") for item in value]

    def _image(self, value: Any) -> str:
        if not isinstance(value, str):
            self.error(
                "image", f"must be the relative path of a picture, got {_kind(value)}; write the file's name"
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
            number = _finite(row.get(name))
            if number is None or not number.is_integer() or not 1 <= number <= _LARGEST_SIDE:
                shown = row.get(name, "nothing")
                self.error(
                    name,
                    f"must be a whole number of pixels from 1 to {_LARGEST_SIDE}, got {_shown(shown)}; write the "
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

    def _boxes(self, value: Any, size: Size | None) -> tuple[Box, ...]:
        if not isinstance(value, list):
            self.error(
                "bboxs",
                f"must be a list of boxes, got {_kind(value)}; write [[left, top, right, bottom], ...] or []",
            )
            return ()
        if len(value) == 4 and all(_finite(item) is not None for item in value):
            self.error("bboxs", f"is a list of boxes, got one box {_shown(value)}; write [{_shown(value)}]")
            return ()
        boxes = (self._box(f"bboxs[{index}]", item, size) for index, item in enumerate(value))
        return tuple(box for box in boxes if box is not None)

    def _box(self, name: str, value: Any, size: Size | None) -> Box | None:
        """The box in the unit square, clipped to the picture; None with a problem noted where it cannot be one."""
        if not isinstance(value, list) or len(value) != 4:
            self.error(name, f"a box is [left, top, right, bottom], got {_shown(value)}; write four numbers")
            return None
        numbers = [_finite(item) for item in value]
        left, top, right, bottom = numbers
        if left is None or top is None or right is None or bottom is None:
            self.error(
                name, f"a box holds four finite numbers, got {_shown(value)}; write pixels, without quotes"
            )
            return None
        if size is not None:
            self.boxes.append(WrittenBox(self.line, (left, top, right, bottom), size))
        if left >= right or top >= bottom:
            self.error(
                name,
                f"a box has left < right and top < bottom, got {_shown(value)}; put the corners in order{_if_width(size, left, top, right, bottom)}",
            )
            return None
        if size is None:
            return None
        if max(abs(left), abs(top), right, bottom) <= 1 < min(size.width, size.height):
            self.error(
                name,
                f"a box is in pixels of the picture, {_shown(value)} are fractions; multiply by width and height",
            )
            return None
        return self._clipped(name, (left, top, right, bottom), size)

    def _clipped(self, name: str, corners: tuple[float, float, float, float], size: Size) -> Box | None:
        left, top, right, bottom = corners
        inside = (
            max(left, 0.0),
            max(top, 0.0),
            min(right, float(size.width)),
            min(bottom, float(size.height)),
        )
        across = max(-left, right - size.width, 0.0)
        down = max(-top, bottom - size.height, 0.0)
        unit = (
            inside[0] / size.width,
            inside[1] / size.height,
            inside[2] / size.width,
            inside[3] / size.height,
        )
        has_area = unit[0] < unit[2] and unit[1] < unit[3]
        if has_area and max(across, down) <= CUSTOMARY_OVERHANG_PIXELS:
            return Box(*unit)
        rule = (
            f"a box must lie in its picture of {size.width} x {size.height} pixels, "
            f"[{', '.join(f'{c:g}' for c in corners)}]"
        )
        if not has_area:
            self.error(name, f"{rule} lies outside; correct the box, or width and height")
            return None
        if across > _largest_overhang(size.width) or down > _largest_overhang(size.height):
            self.error(
                name,
                f"{rule} leaves it by {max(across, down):g} pixels; correct the box, or width and height"
                f"{_if_thousandths(*corners)}",
            )
            return None
        self.warn(name, f"{rule} leaves it by {max(across, down):g} pixels and is clipped; correct the box")
        return Box(*unit)

    def _key_words(self, value: Any) -> tuple[str, ...]:
        words = [value] if isinstance(value, str) else value
        if words is None:
            return ()
        if not isinstance(words, list) or not all(isinstance(w, str) and encodable(w) for w in words):
            self.error(
                "key_words",
                f"must be a string or a list of strings, got {_shown(value)}; write the counted noun",
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
        return f"the address {_shown(image)}; write the path below the picture folder, without file://"
    return f"the address {_shown(image)}; download it into the picture folder and write the file's name"


def _if_width(size: Size | None, *numbers: float) -> str:
    if size is None or not fits_as_width(numbers, size):
        return ""
    x, y, w, h = (f"{n:g}" for n in (*numbers[:2], numbers[0] + numbers[2], numbers[1] + numbers[3]))
    return f", or if it is x, y, width, height (COCO) write [{x}, {y}, {w}, {h}]"


def _if_thousandths(*corners: float) -> str:
    if not all(0 <= corner <= 1000 for corner in corners):
        return ""
    return ", or if it is in thousandths (0 to 1000) multiply by width / 1000 and height / 1000"


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def _finite(value: Any) -> float | None:
    """The number as a float, or None for anything that is not a finite number (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _largest_overhang(side: int) -> float:
    """In pixels; the customary pixel is allowed in small pictures too, where it is more than the share."""
    return max(LARGEST_OVERHANG_SHARE * side, CUSTOMARY_OVERHANG_PIXELS)


@lru_cache(maxsize=1024)  # a file's rows have the same fields
def _meant(name: str) -> str | None:
    found = difflib.get_close_matches(name.lower(), _FIELDS, n=1, cutoff=0.8)
    return found[0] if found else None


def _near(name: str, row: dict[str, Any]) -> str | None:
    strangers = {key.lower(): key for key in row if key not in _FIELDS}
    found = difflib.get_close_matches(name, strangers, n=1, cutoff=0.6)
    return strangers[found[0]] if found else None


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names[type(value)]


def _shown(value: Any) -> str:
    return shortened(repr(value))
