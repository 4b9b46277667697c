"""Pictures for a page: opened safely, made smaller, written into the page as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from opengrit.core.errors import ImageError
from opengrit.core.images import open_picture
from opengrit.core.types import Example

MAX_SIDE = 640  # picture pixels; about the width of a column of the report on a sharp screen
JPEG_QUALITY = 82
PNG_BYTES = 40_000  # a picture whose PNG is smaller than this stays lossless


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the page. `data_uri` starts with `data:image/`."""

    data_uri: str


@dataclass(frozen=True, slots=True)
class NoPicture:
    """There is no picture to show, and why."""

    reason: str


OpenPicture = Callable[[Example], Picture | NoPicture]


def read_picture(example: Example) -> Picture | NoPicture:
    """The example's picture from its file, or why there is none; a file that has changed its size is refused.

    Boxes drawn on a picture of another shape would point at the wrong things.
    """
    try:
        picture = open_picture(example.image)
    except ImageError as error:
        return NoPicture(str(error))
    size = example.picture_size
    if picture.size != (size.width, size.height):
        now = f"{picture.size[0]} x {picture.size[1]}"
        return NoPicture(
            f"a picture keeps the size its record says, {size.width} x {size.height}, but {example.image} is now {now}; "
            "restore the old file"
        )
    return embed(picture)


def embed(picture: Image.Image, max_side: int = MAX_SIDE) -> Picture:
    """The picture as a data URI, its longer side at most `max_side` pixels; never enlarged."""
    picture = picture.convert("RGB")
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    picture.save(png, format="PNG", optimize=True)
    if png.tell() <= PNG_BYTES:
        return Picture(_data_uri("png", png.getvalue()))
    jpeg = io.BytesIO()
    picture.save(jpeg, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return Picture(_data_uri("jpeg", jpeg.getvalue()))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
