"""The page's session store: uploaded pictures and their answers, in memory; the oldest are dropped first."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import PurePosixPath

from opengrit.core.boxes import Size
from opengrit.core.images import DEFAULT_LIMITS, Limits, open_any
from opengrit.inference.answer import Answer
from opengrit.serving.decoder_process import preview


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture's file as uploaded, its upright size, and a smaller copy for the page (its bytes and media type)."""

    content: bytes
    name: str
    size: Size
    preview: bytes
    media_type: str

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        return len(self.content) + len(self.preview)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer and the picture it is about."""

    answer: Answer
    picture: StoredPicture


def prepare(content: bytes, *, name: str = "", limits: Limits = DEFAULT_LIMITS) -> StoredPicture:
    """The picture in these bytes, ready for the store; `name` is the name of its file, and may be anything.

    It is opened here: for pictures of our own. Raises ImageError where the bytes are no picture or are over the limits.
    """
    picture = open_any(content, limits=limits)
    size = Size(*picture.size)
    return StoredPicture(content, plain_name(name), size, *preview(picture))


def plain_name(name: str) -> str:
    """A file's name without folder and ending, in letters, digits, "-" and "_"; "picture" where nothing is left."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "picture"


class SessionStore:
    """Pictures and answers by unguessable names. It holds at most `max_bytes`; the oldest go first."""

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._examples: dict[str, StoredPicture] = {}
        self._pictures: OrderedDict[str, StoredPicture] = OrderedDict()
        self._answers: OrderedDict[str, StoredAnswer] = OrderedDict()

    def add_example(self, picture: StoredPicture) -> str:
        """The name of a picture that is never dropped."""
        name = f"example-{len(self._examples)}"
        self._examples[name] = picture
        return name

    def add_picture(self, picture: StoredPicture) -> str:
        """The name under which the picture is stored."""
        name = secrets.token_urlsafe(18)
        self._pictures[name] = picture
        self._make_room()
        return name

    def add_answer(self, answer: Answer, picture: StoredPicture) -> str:
        """The name under which the answer and its picture are stored."""
        name = secrets.token_urlsafe(18)
        self._answers[name] = StoredAnswer(answer, picture)
        self._make_room()
        return name

    def picture(self, name: str) -> StoredPicture | None:
        """The picture of that name, or None where there is none (any more)."""
        if name in self._pictures:
            self._pictures.move_to_end(name)
        return self._examples.get(name) or self._pictures.get(name)

    def answer(self, name: str) -> StoredAnswer | None:
        """The answer of that name, or None where there is none (any more)."""
        return self._answers.get(name)

    @property
    def num_bytes(self) -> int:
        """The size of pictures and answers without the examples; a picture that several answers share counts once."""
        pictures = {id(p): p for p in self._pictures.values()}
        pictures |= {id(stored.picture): stored.picture for stored in self._answers.values()}
        examples = {id(p) for p in self._examples.values()}
        texts = sum(2_000 + 4 * len(stored.answer.text) for stored in self._answers.values())
        return texts + sum(p.num_bytes for key, p in pictures.items() if key not in examples)

    def _make_room(self) -> None:
        while self.num_bytes > self._max_bytes and len(self._answers) + len(self._pictures) > 1:
            if self._answers and len(self._answers) >= len(self._pictures):
                self._answers.popitem(last=False)
            else:
                self._pictures.popitem(last=False)
