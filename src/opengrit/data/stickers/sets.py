"""The named sets of sticker world, as examples and as GRIT JSONL with PNG files."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError
from opengrit.core.types import Example
from opengrit.data.stickers.questions import MAX_COUNT, SceneQuestion, ask_count, ask_open, ask_yes_no
from opengrit.data.stickers.two_looks import ask_two_looks
from opengrit.data.stickers.world import SEEN_STYLES, UNSEEN_STYLE, draw, seeded

VERSION = 1  # part of every seed and of the cache's name: a change of the world is a change of the number


def _count(name: str, index: int) -> SceneQuestion:
    return ask_count(seeded(VERSION, name, index), index % (MAX_COUNT + 1), SEEN_STYLES)


def _spatial(name: str, index: int) -> SceneQuestion:
    rng = seeded(VERSION, name, index)
    if index % 3 == 2:
        return ask_open(rng, SEEN_STYLES)
    return ask_yes_no(rng, index % 3 == 0, SEEN_STYLES)


def _train(name: str, index: int) -> SceneQuestion:
    # GRIT's mix: ten counting rows with answers 0 to 4 twice each, ten spatial rows, half of them yes/no.
    rng = seeded(VERSION, name, index)
    if index < 10:
        return ask_count(rng, index // 2, SEEN_STYLES)
    return ask_open(rng, SEEN_STYLES) if index % 2 else ask_yes_no(rng, index % 4 == 0, SEEN_STYLES)


def _train_spatial(name: str, index: int) -> SceneQuestion:
    # The spatial half of the mix, twice as long: the paper's count ablation trains on twenty of them.
    return _train(name, 10 + index)


def _unseen(name: str, index: int) -> SceneQuestion:
    rng, styles = seeded(VERSION, name, index), (UNSEEN_STYLE,)
    if index % 2:
        return ask_count(rng, (index // 2) % (MAX_COUNT + 1), styles)
    if index % 3 == 2:
        return ask_open(rng, styles, held_out=True)
    return ask_yes_no(rng, index % 3 == 0, styles, held_out=True)


def _compose(name: str, index: int) -> SceneQuestion:
    return ask_two_looks(seeded(VERSION, name, index), index, SEEN_STYLES)


_SETS: dict[str, tuple[int, str, Callable[[str, int], SceneQuestion]]] = {
    "train20": (20, "train", _train),
    "count": (240, "test", _count),
    "spatial": (240, "test", _spatial),
    "unseen": (240, "test", _unseen),
    "compose": (240, "test", _compose),
    "compose20": (20, "train", _compose),
    "spatial20": (20, "train", _train_spatial),
    "dev": (48, "dev", lambda name, index: (_count if index % 2 else _spatial)(name, index // 2)),
}
SET_NAMES = tuple(_SETS)


@lru_cache(maxsize=len(_SETS))
def asked(name: str) -> tuple[SceneQuestion, ...]:
    """Every question of a set with its scene, in order. Raises DataError for an unknown name."""
    if name not in _SETS:
        raise DataError(
            f"a sticker set is one of {', '.join(SET_NAMES)}, got {name!r}; write stickers/{SET_NAMES[0]}, for example"
        )
    length, _, make = _SETS[name]
    return tuple(make(name, index) for index in range(length))


def examples(name: str) -> list[Example]:
    """A set as examples whose pictures lie in the user's cache folder (made there on first use)."""
    name = name.removeprefix("stickers/")
    questions = asked(name)
    folder = _cache_folder() / f"stickers-v{VERSION}" / name
    _, split, _ = _SETS[name]
    made = []
    for index, question in enumerate(questions):
        path = folder / f"{index:05d}.png"
        if not path.exists():
            _write_picture(draw(question.scene), path)
        made.append(_example(name, index, question, path=str(path), split=split))
    return made


def write(name: str, out: Path) -> Path:
    """The path of `out`/NAME.jsonl, written as GRIT JSONL beside a folder `out`/images of PNG files.

    Raises DataError when the JSONL is there already: nothing is overwritten.
    """
    name = name.removeprefix("stickers/")
    questions = asked(name)
    jsonl = Path(out) / f"{name}.jsonl"
    if jsonl.exists():
        raise DataError(
            f"a written set is never overwritten, {jsonl} exists; choose another --out or remove it"
        )
    _, split, _ = _SETS[name]
    lines = []
    for index, question in enumerate(questions):
        image = f"{name}-{index:05d}.png"
        _write_picture(draw(question.scene), Path(out) / "images" / image)
        lines.append(json.dumps(_row(name, question, image=image, split=split)))
    jsonl.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return jsonl


def _row(name: str, question: SceneQuestion, *, image: str, split: str) -> dict[str, object]:
    size = question.scene.size
    return {
        "question": question.question,
        "answer": int(question.answer) if question.answer.isdigit() else question.answer,
        "image": image,
        "width": size.width,
        "height": size.height,
        "bboxs": [[o.left, o.top, o.right, o.bottom] for o in question.pointed],
        "dataset": dataset_of(name, question),
        "split": split,
        "key_words": list(question.key_words),
    }


def dataset_of(name: str, question: SceneQuestion) -> str:
    """The data set a row reports under: its set, with the kind of question where a set mixes them."""
    if question.looks:
        return f"stickers/{name}/{question.looks}"
    kind = "count" if question.answer.isdigit() else "spatial"
    return f"stickers/{name}" if name == kind else f"stickers/{name}/{kind}"


def _example(name: str, index: int, question: SceneQuestion, *, path: str, split: str) -> Example:
    size: Size = question.scene.size
    return Example(
        id=f"stickers/{name}:{index}",
        question=question.question,
        answer=question.answer,
        image=path,
        dataset=dataset_of(name, question),
        picture_size=size,
        boxes=tuple(o.box(size) for o in question.pointed),
        key_words=question.key_words,
        split=split,
    )


def _cache_folder() -> Path:
    base = os.environ.get("OPENGRIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "opengrit"


def _write_picture(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(png_bytes(picture))
    staged.replace(path)


def png_bytes(picture: Image.Image) -> bytes:
    """The RGB picture as a PNG of stored (uncompressed) blocks.

    Compressors differ between zlib builds; stored blocks are the same bytes on every machine.
    """
    width, height = picture.size
    raw = picture.tobytes()
    rows = b"".join(b"\0" + raw[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    blocks = [rows[i : i + 65535] for i in range(0, len(rows), 65535)]
    stored = b"".join(
        struct.pack("<BHH", i == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for i, block in enumerate(blocks)
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
        for tag, body in chunks
    )
