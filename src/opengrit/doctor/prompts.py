"""The doctor on prompts and boxes: lengths against the model's limits, and a frame that leads there and back."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, ImageDraw

from opengrit.core.boxes import Box
from opengrit.core.errors import ImageError
from opengrit.core.types import Example, Tag
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding, split_message
from opengrit.grounding.frames import Frame, frame_for
from opengrit.grounding.own_prompts import OwnPrompt
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import Strategy, asked_for, user_text
from opengrit.grounding.targets import target_text
from opengrit.sampling import Asked

_AREA = Area.PROMPTS
_TAGS = re.compile(r"</?[A-Za-z_]\w*>")
_READ = {tag.value for tag in Tag}
_ROWS = 200  # prepared, evenly spread over the data, and the longest question; all of a smaller data set
_NEARLY = 0.9  # of the model's context
_SHRUNK = 0.25  # of a picture's side, as the model sees it
_ROOM = 1.5  # for words of its own, beyond the shortest reply in the format

# A picture whose sides no family's patches divide, and boxes that touch its edges, cross it and are small.
_KNOWN_PICTURE = (203, 149)
_KNOWN_BOXES = (Box(0.0, 0.0, 0.5, 0.5), Box(0.25, 0.1, 0.9, 1.0), Box(0.6, 0.7, 0.68, 0.8))


def examine_prompts(context: Context) -> Iterator[Finding]:
    """Needs the model's processor, and no forward pass."""
    if context.rubric is None:
        yield _AREA.skipped("prompts", "your own code cannot be used: see above")
        return
    yield from _own_prompt(context)
    if context.loaded is None:
        yield _AREA.skipped("prompts", context.why_without_model)
        return
    from opengrit.sampling.transformers_engine import TransformersSampler

    preparer = TransformersSampler(context.loaded)
    yield _round_trip(context, preparer)
    seen: list[Example] = []
    failed: list[str] = []
    for example in _spread(context.examples):
        text = user_text(context.strategy, example.question, family=context.loaded.frame)
        try:
            context.prompts.append(
                preparer.prepare(Asked(example.id, example.image, text, context.recipe.system))
            )
        except ImageError as error:
            failed.append(str(error))
            continue
        seen.append(example)
    if failed:
        found, remedy = split_message(failed[0])
        yield _AREA.fail("prompts", f"{len(failed)} prompts cannot be built; the first: {found}", remedy)
    if seen:
        yield _lengths(context)
        yield from _replies(context, seen)
        yield from _detail(context, seen)


def _own_prompt(context: Context) -> Iterator[Finding]:
    """What a prompt of the recipe's own asks for that cannot be read, and does not ask for."""
    if not isinstance(context.strategy, OwnPrompt):
        return
    words = f"{context.recipe.system or ''}\n{context.strategy.trial}"
    asks = asked_for(context.strategy, system=context.recipe.system)
    unread = sorted({tag for tag in _TAGS.findall(words) if tag not in _READ})
    missing = []
    if unread:
        missing.append(f"asks for {', '.join(unread)}, which nothing reads")
    if not asks.answer_tag:
        missing.append("asks for no <answer>, so the whole reply counts as the answer")
    if not asks.boxes:
        missing.append("asks for no boxes")
    elif not {"<think>", "<rethink>"} & set(_TAGS.findall(words)):
        missing.append("asks for boxes but not for <think>, so no box is in a thought")
    if not missing:
        yield _AREA.ok("own prompt", f"{context.strategy} asks for boxes and for tags that are read")
        return
    yield _AREA.warn(
        "own prompt",
        f"the prompt {context.strategy} {'; it '.join(missing)}",
        "ask for <think>...</think>, <rethink>...</rethink>, <answer> and boxes under the key 'bbox_2d' where rewards need them",
    )


def _spread(examples: Sequence[Example]) -> list[Example]:
    if not examples:
        return []
    step = max(1, len(examples) // _ROWS)
    longest = max(examples, key=lambda example: len(example.question))
    return list(dict.fromkeys([longest, *examples[::step]]))


def _round_trip(context: Context, preparer: Any) -> Finding:
    """Boxes on a known picture, written as the model would write them at the size it sees, and read again."""
    assert context.loaded is not None
    picture = Image.new("RGB", _KNOWN_PICTURE, "white")
    for box in _KNOWN_BOXES:
        width, height = _KNOWN_PICTURE
        edges = (box.left * width, box.top * height, box.right * width - 1, box.bottom * height - 1)
        ImageDraw.Draw(picture).rectangle(edges, outline="black")
    prompt = preparer.prepare(Asked("known", picture, "Where are the rectangles?"))
    frame = frame_for(context.loaded.frame, prompt.picture.seen_size)
    written = ", ".join(json.dumps({"bbox_2d": list(frame.from_box(box))}) for box in _KNOWN_BOXES)
    back = parse(f"<think>{written}</think>", frame).boxes
    pairs = zip(back, _KNOWN_BOXES, strict=False)
    if len(back) == len(_KNOWN_BOXES) and all(_close(a, b, frame) for a, b in pairs):
        size = prompt.picture.seen_size
        return _AREA.ok(
            "frame",
            f"boxes on a known picture of {_KNOWN_PICTURE[0]} x {_KNOWN_PICTURE[1]}, seen as {size.width} x "
            f"{size.height} and written in the frame {frame.name}, are read back within one step",
        )
    return _AREA.fail(
        "frame",
        f"boxes written in the frame {frame.name} on a known picture are not read back",
        "please report this model and its processor; until then set another model.frame",
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


def _lengths(context: Context) -> Finding:
    assert context.loaded is not None
    lengths = [len(prompt.ids) for prompt in context.prompts]
    pictures = [len(prompt.picture.placeholder_ids) for prompt in context.prompts]
    completion = context.recipe.train.max_completion_length
    context_length = context.loaded.base.config.get_text_config().max_position_embeddings
    whole = max(lengths) + completion
    found = (
        f"prompts take {_range(lengths)} tokens, {_range(pictures)} of them the picture; with {completion} of a completion "
        f"at most {whole} of the {context_length} that the model holds"
    )
    remedy = "shorten the questions, lower model.max_pixels (or max_tiles), or train.max_completion_length"
    fails, warns = whole > context_length, whole > _NEARLY * context_length
    return _AREA.graded("prompt lengths", found, remedy, fails=fails, warns=warns)


def _range(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _replies(context: Context, examples: Sequence[Example]) -> Iterator[Finding]:
    """The shortest reply in the format that has each of a row's boxes, against the limit of a completion."""
    recipe, loaded = context.recipe, context.loaded
    if loaded is None or not asked_for(context.strategy, system=recipe.system).boxes:
        return
    strategy = Strategy.SFT if recipe.strategy == Strategy.SFT else Strategy.GROUNDED
    lengths = []
    for example, prompt in zip(examples, context.prompts, strict=True):
        frame = frame_for(loaded.frame, prompt.picture.seen_size)
        text = target_text(example, strategy=strategy, frame=frame)
        lengths.append(len(loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]))
    limit, median = recipe.train.max_completion_length, statistics.median(lengths)
    found = (
        f"the shortest reply in the format takes {_range(lengths)} tokens (half of the rows {median:.0f} or more), and "
        f"train.max_completion_length is {limit}"
    )
    remedy = f"set train.max_completion_length to {2 * max(lengths)} or more"
    yield _AREA.graded(
        "completion length",
        found,
        remedy,
        fails=limit < median,
        warns=limit < _ROOM * max(lengths),
        why="most completions would be cut off",
        why_warn="it leaves little room for words",
    )


def _detail(context: Context, examples: Sequence[Example]) -> Iterator[Finding]:
    """How small the model sees the pictures."""
    sizes = [(e.picture_size, p.picture.seen_size) for e, p in zip(examples, context.prompts, strict=True)]
    shrunk = [(size, seen) for size, seen in sizes if seen.width < _SHRUNK * size.width]
    if shrunk:
        size, seen = shrunk[0]
        yield _AREA.warn(
            "picture detail",
            f"{len(shrunk)} of {len(sizes)} pictures are shown to the model at less than a quarter of their width "
            f"({size.width} x {size.height} as {seen.width} x {seen.height}): small objects cannot be seen",
            "raise model.max_pixels",
        )
