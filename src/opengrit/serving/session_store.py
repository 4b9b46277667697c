"""What the page keeps in memory: pictures people brought and answers they got, the oldest dropped first."""

from __future__ import annotations

import io
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.images import DEFAULT_LIMITS, Limits, open_any
from opengrit.inference.grounder import Answer

PREVIEW_SIDE = 1280  # pixels; a larger picture is shown smaller, and asked about and downloaded as it is
PREVIEW_QUALITY = 88


@dataclass(frozen=True, slots=True)
class KeptPicture:
    """A picture's file as it came, its upright size, and a smaller copy for the page (its bytes and media type)."""

    content: bytes
    name: str
    size: Size
    preview: bytes
    media_type: str

    def open(self, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
        """The picture, RGB and upright. Raises ImageError as `open_any` does."""
        return open_any(self.content, limits=limits)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return len(self.content) + len(self.preview)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer and the picture it is about."""

    answer: Answer
    picture: KeptPicture


def keep(content: bytes, *, name: str = "", limits: Limits = DEFAULT_LIMITS) -> KeptPicture:
    """The picture in these bytes, ready to be kept; `name` is the name of its file, and may be anything.

    Raises ImageError where the bytes are no picture or are over the limits.
    """
    picture = open_any(content, limits=limits)
    size = Size(*picture.size)
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if max(size.width, size.height) <= PREVIEW_SIDE // 2:
        picture.save(out, format="PNG")
        return KeptPicture(content, plain_name(name), size, out.getvalue(), "image/png")
    picture.save(out, format="JPEG", quality=PREVIEW_QUALITY)
    return KeptPicture(content, plain_name(name), size, out.getvalue(), "image/jpeg")


def plain_name(name: str) -> str:
    """A file's name without folder and ending, in letters, digits, "-" and "_"; "picture" where nothing is left."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "picture"


class Shelf:
    """Pictures and answers by names that nobody can guess. At most `max_bytes` are kept; the oldest go first."""

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._examples: dict[str, KeptPicture] = {}
        self._pictures: OrderedDict[str, KeptPicture] = OrderedDict()
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()

    def put_example(self, picture: KeptPicture) -> str:
        """The name of a picture that stays as long as the server."""
        name = f"example-{len(self._examples)}"
        self._examples[name] = picture
        return name

    def put_picture(self, picture: KeptPicture) -> str:
        """The name under which the picture is kept."""
        name = secrets.token_urlsafe(18)
        self._pictures[name] = picture
        self._make_room()
        return name

    def put_answer(self, answer: Answer, picture: KeptPicture) -> str:
        """The name under which the answer is kept, its picture with it."""
        name = secrets.token_urlsafe(18)
        self._answers[name] = KeptAnswer(answer, picture)
        self._make_room()
        return name

    def picture(self, name: str) -> KeptPicture | None:
        """The picture of that name, or None where there is none (any more)."""
        if name in self._pictures:
            self._pictures.move_to_end(name)
        return self._examples.get(name) or self._pictures.get(name)

    def answer(self, name: str) -> KeptAnswer | None:
        """The answer of that name, or None where there is none (any more)."""
        return self._answers.get(name)

    @property
    def num_bytes(self) -> int:
        """What pictures and answers take, examples left out; a picture that several answers share counts once."""
        pictures = {id(p): p for p in self._pictures.values()}
        pictures |= {id(kept.picture): kept.picture for kept in self._answers.values()}
        examples = {id(p) for p in self._examples.values()}
        texts = sum(2_000 + 4 * len(kept.answer.text) for kept in self._answers.values())
        return texts + sum(p.num_bytes for key, p in pictures.items() if key not in examples)

    def _make_room(self) -> None:
        while self.num_bytes > self._max_bytes and len(self._answers) + len(self._pictures) > 1:
            if self._answers and len(self._answers) >= len(self._pictures):
                self._answers.popitem(last=False)
            else:
                self._pictures.popitem(last=False)
