"""More training rows than the packaged twenty, in GRIT's mix, about scenes of no packaged set."""

from __future__ import annotations

import json
from pathlib import Path

from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import SceneQuestion, ask_count, ask_open, ask_yes_no
from opengrit.data.stickers.world import SEEN_STYLES, draw, seeded

BLOCK = 20  # rows after which GRIT's mix repeats: ten that count, five yes/no and five open ones about places


def more_rows(count: int) -> list[SceneQuestion]:
    """`count` questions in GRIT's mix: those of stickers/train20, then new ones about scenes of no packaged set.

    Fewer are the beginning of more. The scenes depend on nothing but their number.
    """
    taken = {asked.scene.fingerprint() for name in sets.SET_NAMES for asked in sets.asked(name)}
    made = list(sets.asked("train20"))[:count]
    attempt = 0
    while len(made) < count:
        new = _new_row(len(made) % BLOCK, attempt)
        attempt += 1
        if new.scene.fingerprint() not in taken:
            taken.add(new.scene.fingerprint())
            made.append(new)
    return made


def _new_row(place: int, attempt: int) -> SceneQuestion:
    rng = seeded(sets.VERSION, "scaling", attempt)
    if place < 10:
        return ask_count(rng, place // 2, SEEN_STYLES)
    return ask_open(rng, SEEN_STYLES) if place % 2 else ask_yes_no(rng, place % 4 == 0, SEEN_STYLES)


def write_rows(count: int, folder: Path) -> Path:
    """The rows as GRIT JSONL beside their pictures; written once, whole."""
    path = folder / f"train{count}.jsonl"
    if path.exists():
        return path
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = []
    for number, asked in enumerate(more_rows(count)):
        image = f"train-{number:05d}.png"  # fewer rows are the beginning of more: the pictures are shared
        if not (images / image).exists():
            staged = images / f".{image}"
            staged.write_bytes(sets.png_bytes(draw(asked.scene)))
            staged.replace(images / image)
        size = asked.scene.size
        row = {
            "question": asked.question,
            "answer": int(asked.answer) if asked.answer.isdigit() else asked.answer,
            "image": image,
            "width": size.width,
            "height": size.height,
            "bboxs": [[o.left, o.top, o.right, o.bottom] for o in asked.pointed],
            "dataset": sets.dataset_of(f"train{count}", asked),
            "split": "train",
            "key_words": list(asked.key_words),
        }
        written.append(json.dumps(row))
    staged = path.with_name(f".{path.name}")
    staged.write_text("".join(line + "\n" for line in written), encoding="utf-8")
    staged.replace(path)
    return path
