"""The packaged models know sticker world and nothing else: which models these are, and which pictures are of another world.

A model is one of them, trained further or not, where its vocabulary is a packaged one's. A picture is taken for one of
sticker world's where its row's data set is, or where it has the size of one of that world's canvases.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from opengrit.core.boxes import Size
from opengrit.core.types import Example
from opengrit.data.stickers.world import CANVASES
from opengrit.models.resolve import base_folder, packaged_names

FOR_PHOTOS = "Qwen/Qwen2.5-VL-3B-Instruct"

_log = logging.getLogger(__name__)
_TOKENIZER = "tokenizer.json"
_LARGEST_BYTES = (
    200_000  # several times a packaged tokenizer; that of a real model has megabytes and is not read
)
_SIZES = frozenset(size for size, _ in CANVASES)


def knows_stickers_only(name: str) -> bool:
    """Whether a name stands for a packaged model, or for a folder, run or adapter trained from one.

    Raises ModelError as `resolve` does.
    """
    if name in packaged_names():
        return True
    file = Path(base_folder(name)) / _TOKENIZER
    if not file.is_file() or file.stat().st_size > _LARGEST_BYTES:
        return False
    return _vocabulary(file.read_text(encoding="utf-8", errors="replace")) in _packaged_vocabularies()


def is_sticker_sized(size: Size) -> bool:
    """Whether a picture has the size of one of sticker world's canvases."""
    return size in _SIZES


def of_another_world(examples: Iterable[Example]) -> list[Example]:
    """The examples whose pictures are not sticker world's."""
    return [
        e for e in examples if not (e.dataset.startswith("stickers/") or is_sticker_sized(e.picture_size))
    ]


def what_it_knows(name: str, *others: str) -> str:
    """A sentence on what a packaged model is for, or several; the names are what the reader calls them."""
    knows, answers = ("know", "they answer") if others else ("knows", "it answers")
    return (
        f"{' and '.join((name, *others))} {knows} emoji stickers only: what {answers} about other pictures means "
        f"nothing; for photos use a hub model, for example {FOR_PHOTOS}"
    )


def tell_what_it_knows(name: str, examples: Iterable[Example]) -> None:
    """Logs a warning where a packaged model is to see pictures that are not sticker world's. Raises as `resolve` does."""
    foreign = of_another_world(examples)
    if foreign and knows_stickers_only(name):
        _log.warning("%s (%s)", what_it_knows(name), _shown(foreign))


def _shown(foreign: list[Example]) -> str:
    first = foreign[0]
    size = f"{first.picture_size.width} x {first.picture_size.height}"
    return f"here: {len(foreign)} row{'s' if len(foreign) > 1 else ''}, the first with {first.image}, {size} pixels"


@cache
def _packaged_vocabularies() -> tuple[dict[str, Any], ...]:
    folder = resources.files("opengrit") / "models" / "packaged"
    found = (
        _vocabulary((folder / name / _TOKENIZER).read_text(encoding="utf-8")) for name in packaged_names()
    )
    return tuple(one for one in found if one is not None)


def _vocabulary(text: str) -> dict[str, Any] | None:
    """The words of a tokenizer's file with their ids; None where it has none."""
    try:
        found = json.loads(text)["model"]["vocab"]
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, dict) else None
