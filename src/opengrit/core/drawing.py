"""A picture with numbered boxes on it, distinguished by number and by colour, readable at any size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from opengrit.core.boxes import Box, Size
from opengrit.core.escaping import shortened
from opengrit.core.palette import COLOURS

# Pixels of the longer side; a smaller picture is enlarged, so that a number can be read on it.
_LEAST_SIDE = 480
_LONGEST_NAME = 40  # characters


class Drawable(Protocol):
    """What is drawn: a box in the picture's pixels (left, top, right, bottom), its number and its label."""

    @property
    def number(self) -> int: ...

    @property
    def label(self) -> str | None: ...

    @property
    def pixels(self) -> tuple[float, float, float, float]: ...


@dataclass(frozen=True, slots=True)
class NumberedBox:
    """A box ready to be drawn; `pixels` are left, top, right, bottom in the picture it is drawn on."""

    number: int
    pixels: tuple[float, float, float, float]
    label: str | None = None


def numbered(boxes: Iterable[Box], size: Size) -> list[NumberedBox]:
    """Boxes of the unit square on a picture of that size, counted from 1 and without labels."""
    return [NumberedBox(number, box.to_pixels(size)) for number, box in enumerate(boxes, start=1)]


@dataclass(frozen=True, slots=True)
class _Tag:
    """A box's name, its place (left, top, right, bottom in pixels as drawn), its paper and its ink."""

    name: str
    place: tuple[float, float, float, float]
    paper: str
    ink: str


def colour_of(number: int) -> tuple[str, str]:
    """The colour of a box by its number (1 is the first), and the ink that is read on it."""
    return COLOURS[(number - 1) % len(COLOURS)]


def draw_boxes(picture: Image.Image, boxes: Sequence[Drawable]) -> Image.Image:
    """A copy of the picture with the boxes on it, each with its number, its label and its colour; RGB.

    Boxes are in pixels of the picture given. Its copy has the same size, or is enlarged until its longer side has
    480 pixels. Lines and letters grow with it; a label is drawn as it is written, its first 40 characters.
    """
    scale = max(1.0, _LEAST_SIDE / max(picture.size))
    shown = picture.convert("RGB").resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    )
    pen = ImageDraw.Draw(shown)
    measure = math.sqrt(shown.width * shown.height)
    line = max(2, round(measure / 200))
    edge = max(1, line // 3)  # in black or white around each line, for pictures of the line's own colour
    font = ImageFont.load_default(max(12, round(measure / 36)))
    tags: list[_Tag] = []
    for box in boxes:
        paper, ink = colour_of(box.number)
        left, top, right, bottom = (n * scale for n in box.pixels)
        around = (left - edge, top - edge, right + edge, bottom + edge)
        pen.rectangle(around, outline=ink, width=edge)
        pen.rectangle((left, top, right, bottom), outline=paper, width=line)
        place = _free_place(pen, _name(box), font, (left, top, right, bottom), tags, shown.size)
        tags.append(_Tag(_name(box), place, paper, ink))
    for tag in tags:  # last, so that no line crosses a name
        pen.rectangle(tag.place, fill=tag.paper)
        middle = ((tag.place[0] + tag.place[2]) / 2, (tag.place[1] + tag.place[3]) / 2)
        pen.text(middle, tag.name, fill=tag.ink, font=font, anchor="mm")
    return shown


def _name(box: Drawable) -> str:
    label = shortened(" ".join((box.label or "").split()), _LONGEST_NAME)
    return f"{box.number} {label}" if label else str(box.number)


def _free_place(
    pen: ImageDraw.ImageDraw,
    name: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[float, float, float, float],
    taken: Sequence[_Tag],
    bounds: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Where a name goes: above its box, below, or inside at the top or bottom; where no other name is."""
    near, high = pen.textbbox((0, 0), name, font=font)[0::2], pen.textbbox((0, 0), "Ag", font=font)[3]
    wide, tall = near[1] - near[0] + 8.0, high + 4.0
    left = min(max(0.0, box[0]), max(0.0, bounds[0] - wide))
    places = [
        (left, top, left + wide, top + tall)
        for top in (box[1] - tall, box[3], box[1], box[3] - tall)
        if top >= 0 and top + tall <= bounds[1]
    ]
    for place in places:
        if not any(_overlap(place, other.place) for other in taken):
            return place
    top = min(max(0.0, box[1]), max(0.0, bounds[1] - tall))
    return places[0] if places else (left, top, left + wide, top + tall)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
