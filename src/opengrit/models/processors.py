"""A model's processor: left padding, a chat template that shows the picture, and bounds on pictures that hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from opengrit.core.errors import ModelError, first_line
from opengrit.models.pretrained import load_pretrained
from opengrit.sampling.model_inputs import TEMPLATE_ERRORS

_THOUGHT = "<think>"
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def load_processor(
    path: str,
    *,
    base_path: str | None = None,
    name: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
) -> Any:
    """The processor of a folder (or of the base it adapts), with left padding and pixel bounds that hold.

    Its chat template shows the picture, and leaves the opening of the thought to the model: "thinking" checkpoints write
    it into the prompt, where a completion in GRIT's format would lack it. Raises ModelError where that is impossible.
    """
    own = any((Path(path) / file).is_file() for file in _PROCESSOR_FILES)
    name = name or path
    processor = load_pretrained("AutoProcessor", path if own else base_path or path, name)
    prepare_processor(processor, name)
    if min_pixels is not None or max_pixels is not None:
        _bound_pixels(processor, min_pixels=min_pixels, max_pixels=max_pixels, name=name)
    if max_tiles is not None:
        _bound_tiles(processor, max_tiles=max_tiles, name=name)
    return processor


def prepare_processor(processor: Any, name: str) -> None:
    """Left padding, and a chat template that shows the picture once and opens no thought; ModelError otherwise."""
    processor.tokenizer.padding_side = "left"
    turn = _rendered_turn(processor, name)
    if turn.count(processor.image_token) != 1:
        raise ModelError(
            f"a model's chat template must show the picture once, that of {name} shows it "
            f"{turn.count(processor.image_token)} times; use the processor and the template that belong to the model"
        )
    if not turn.rstrip().endswith(_THOUGHT):
        return
    template = processor.chat_template
    head, opening, tail = template.rpartition(_THOUGHT) if isinstance(template, str) else ("", "", "")
    processor.chat_template = head + re.sub(r"^(\\n|\s)+", "", tail) if opening else template
    if _rendered_turn(processor, name) != turn[: turn.rindex(_THOUGHT)]:
        raise ModelError(
            f"the model itself must open its thought with {_THOUGHT}, the chat template of {name} already does; remove "
            f"the {_THOUGHT} after the generation prompt from its chat template"
        )


def _rendered_turn(processor: Any, name: str) -> str:
    """A user's turn with a picture and a word, as the chat template writes it before a completion."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    try:
        return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except TEMPLATE_ERRORS as error:  # none is there, or it does not take a picture
        raise ModelError(
            f"a model's processor needs a chat template that takes a picture, that of {name} has none "
            f"({first_line(error)}); use the processor that belongs to the model"
        ) from error


def _bound_tiles(processor: Any, *, max_tiles: int, name: str) -> None:
    image_processor = processor.image_processor
    if "num_patches" not in image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt"):
        raise ModelError(
            f"max_tiles limits the pictures of models that cut them into tiles, {name} does not; leave it out"
        )
    image_processor.max_patches = max_tiles
    image_processor.min_patches = min(image_processor.min_patches, max_tiles)
    wide = Image.new("RGB", (image_processor.size["width"] * (max_tiles + 1), image_processor.size["height"]))
    made = int(image_processor(images=[wide], crop_to_patches=True, return_tensors="pt")["num_patches"][0])
    if made > max_tiles + 1:  # the thumbnail comes on top
        raise ModelError(
            f"max_tiles must limit the tiles of a picture, {name} made {made} with max_tiles {max_tiles}; this version "
            "of its processor ignores the limit"
        )


def _bound_pixels(processor: Any, *, min_pixels: int | None, max_pixels: int | None, name: str) -> None:
    image_processor = processor.image_processor
    size = dict(image_processor.size)
    if size.get("shortest_edge") is None or size.get("longest_edge") is None:
        raise ModelError(
            f"min_pixels and max_pixels limit the pictures of models that resize freely, {name} cuts pictures into "
            "fixed tiles; leave both out"
        )
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
    side = image_processor.patch_size * image_processor.merge_size
    if not side * side <= size["longest_edge"] or size["shortest_edge"] > size["longest_edge"]:
        raise ModelError(
            f"min_pixels must be at most max_pixels, and max_pixels at least {side} x {side} = {side * side}, got "
            f"{size['shortest_edge']} and {size['longest_edge']} for {name}; change them in the recipe"
        )
    image_processor.size = {"shortest_edge": size["shortest_edge"], "longest_edge": size["longest_edge"]}
    edge = int((4 * size["longest_edge"]) ** 0.5) + side
    grid = image_processor(images=[Image.new("RGB", (edge, edge))], return_tensors="pt")["image_grid_thw"][0]
    made = int(grid.prod()) * image_processor.patch_size**2
    if made > size["longest_edge"]:
        raise ModelError(
            f"max_pixels must limit the resized picture, {name} made {made} pixels of a larger one with max_pixels "
            f"{size['longest_edge']}; this version of its processor ignores the limit"
        )
