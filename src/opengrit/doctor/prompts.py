"""The doctor on prompts and boxes: lengths against the model's limits, and a frame that leads there and back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, ImageDraw

from opengrit.core.boxes import Box
from opengrit.core.errors import ImageError
from opengrit.core.types import Example
from opengrit.doctor.context import Notes, Patient, split_message
from opengrit.doctor.findings import Area, Finding
from opengrit.grounding.frames import Frame, frame_for
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import Strategy, user_text
from opengrit.grounding.targets import target_text
from opengrit.sampling import Asked

_NOTES = Notes(Area.PROMPTS)
_ROWS = (
    200  # prepared, evenly spread over the data, with the longest question; all of it where it is no larger
)
_NEARLY = 0.9  # of the context
_SHRUNK = 0.25  # of a picture's side, as the model sees it
_ROOM = 1.5  # for words of its own, beyond the shortest reply in the format

# A picture whose sides no family's patches divide, and boxes that touch its edges, cross it and are small.
_KNOWN_PICTURE = (203, 149)
_KNOWN_BOXES = (Box(0.0, 0.0, 0.5, 0.5), Box(0.25, 0.1, 0.9, 1.0), Box(0.6, 0.7, 0.68, 0.8))


def examine_prompts(patient: Patient) -> Iterator[Finding]:
    """Needs the model's processor, and no forward pass."""
    if patient.loaded is None:
        yield _NOTES.skipped("prompts", patient.why_without_model)
        return
    from opengrit.sampling.transformers_engine import TransformersSampler

    preparer = TransformersSampler(patient.loaded)
    yield _there_and_back(patient, preparer)
    examples = _spread(patient.examples)
    seen: list[Example] = []
    failed: list[str] = []
    for example in examples:
        text = user_text(patient.recipe.strategy, example.question, family=patient.loaded.frame)
        try:
            patient.prompts.append(preparer.prepare(Asked(example.id, example.image, text)))
        except ImageError as error:
            failed.append(str(error))
            continue
        seen.append(example)
    if failed:
        found, remedy = split_message(failed[0])
        yield _NOTES.fail("prompts", f"{len(failed)} prompts cannot be made; the first: {found}", remedy)
    if seen:
        yield from _lengths(patient)
        yield from _replies(patient, seen)
        yield from _detail(patient, seen)


def _spread(examples: Sequence[Example]) -> list[Example]:
    if not examples:
        return []
    step = max(1, len(examples) // _ROWS)
    longest = max(examples, key=lambda example: len(example.question))
    return list(dict.fromkeys([longest, *examples[::step]]))


def _there_and_back(patient: Patient, preparer: Any) -> Finding:
    """Boxes on a known picture, written as the model would write them at the size it sees, and read again."""
    assert patient.loaded is not None
    picture = Image.new("RGB", _KNOWN_PICTURE, "white")
    for box in _KNOWN_BOXES:
        width, height = _KNOWN_PICTURE
        edges = (box.left * width, box.top * height, box.right * width - 1, box.bottom * height - 1)
        ImageDraw.Draw(picture).rectangle(edges, outline="black")
    prompt = preparer.prepare(Asked("known", picture, "Where are the rectangles?"))
    frame = frame_for(patient.loaded.frame, prompt.picture.seen_size)
    written = ", ".join(json.dumps({"bbox_2d": list(frame.from_box(box))}) for box in _KNOWN_BOXES)
    back = parse(f"<think>{written}</think>", frame).boxes
    if len(back) == len(_KNOWN_BOXES) and all(
        _close(a, b, frame) for a, b in zip(back, _KNOWN_BOXES, strict=True)
    ):
        size = prompt.picture.seen_size
        return _NOTES.ok(
            "frame",
            f"boxes on a known picture of {_KNOWN_PICTURE[0]} x {_KNOWN_PICTURE[1]}, seen as {size.width} x {size.height} "
            f"and written in the frame {frame.name}, come back within one step",
        )
    return _NOTES.fail(
        "frame",
        f"boxes written in the frame {frame.name} on a known picture do not come back",
        "please report this model and its processor; until then name another model.frame",
    )


def _close(back: Box, box: Box, frame: Frame) -> bool:
    width, height = frame.extent
    steps = [
        (back.left - box.left) * width,
        (back.right - box.right) * width,
        (back.top - box.top) * height,
        (back.bottom - box.bottom) * height,
    ]
    return max(map(abs, steps)) <= (0.001 if frame.extent == (1.0, 1.0) else 1.0)


def _lengths(patient: Patient) -> Iterator[Finding]:
    assert patient.loaded is not None
    lengths = [len(prompt.ids) for prompt in patient.prompts]
    pictures = [len(prompt.picture.placeholder_ids) for prompt in patient.prompts]
    completion = patient.recipe.train.max_completion_length
    context = patient.loaded.base.config.get_text_config().max_position_embeddings
    whole = max(lengths) + completion
    found = (
        f"prompts take {_range(lengths)} tokens, {_range(pictures)} of them the picture; with {completion} of a completion "
        f"at most {whole} of the {context} that the model holds"
    )
    remedy = "shorten the questions, lower model.max_pixels (or max_tiles), or train.max_completion_length"
    if whole > context:
        yield _NOTES.fail("prompt lengths", found, remedy)
    elif whole > _NEARLY * context:
        yield _NOTES.warn("prompt lengths", found, remedy)
    else:
        yield _NOTES.ok("prompt lengths", found)


def _range(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _replies(patient: Patient, examples: Sequence[Example]) -> Iterator[Finding]:
    """The shortest reply in the format that has each of a row's boxes, against the limit of a completion."""
    recipe, loaded = patient.recipe, patient.loaded
    if loaded is None or recipe.strategy == Strategy.DIRECT:
        return
    strategy = Strategy.SFT if recipe.strategy == Strategy.SFT else Strategy.GROUNDED
    lengths = []
    for example, prompt in zip(examples, patient.prompts, strict=True):
        text = target_text(
            example, strategy=strategy, frame=frame_for(loaded.frame, prompt.picture.seen_size)
        )
        lengths.append(len(loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]))
    limit, median = recipe.train.max_completion_length, statistics.median(lengths)
    found = (
        f"the shortest reply in the format takes {_range(lengths)} tokens (half of the rows {median:.0f} or more), and "
        f"train.max_completion_length is {limit}"
    )
    remedy = f"set train.max_completion_length to {2 * max(lengths)} or more"
    if limit < median:
        yield _NOTES.fail("completion length", f"{found}: most completions would be cut off", remedy)
    elif limit < _ROOM * max(lengths):
        yield _NOTES.warn("completion length", f"{found}: it leaves little room for words", remedy)
    else:
        yield _NOTES.ok("completion length", found)


def _detail(patient: Patient, examples: Sequence[Example]) -> Iterator[Finding]:
    """How small the model sees the pictures."""
    pairs = list(zip(examples, patient.prompts, strict=True))
    shrunk = [e for e, p in pairs if p.picture.seen_size.width < _SHRUNK * e.picture_size.width]
    if shrunk:
        example = shrunk[0]
        seen = next(p.picture.seen_size for e, p in pairs if e is example)
        yield _NOTES.warn(
            "picture detail",
            f"{len(shrunk)} of {len(pairs)} pictures are shown to the model at less than a quarter of their width "
            f"({example.picture_size.width} x {example.picture_size.height} as {seen.width} x {seen.height}): small things "
            "cannot be seen",
            "raise model.max_pixels",
        )
