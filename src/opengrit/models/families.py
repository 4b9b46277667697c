"""Model families: what differs between them, by the config's `model_type`; and a loaded model of a family.

A new family is an entry in `_FAMILIES` and its coordinate unit in `grounding/frames.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from opengrit.core.boxes import Size
from opengrit.core.errors import ModelError
from opengrit.models.vision_tower import quicken_tower
from opengrit.sampling.model_inputs import PreparedPicture, VisualTokens


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between model families, by the config's `model_type`."""

    model_type: str  # also the name of the coordinate frame it writes in
    position_axes: int  # 3: time, row and column, as in Qwen's rotary positions; 1: plain positions
    has_grid: bool  # its processor returns a grid of patches and is bounded in pixels; else in tiles
    picture_tokens: tuple[str, ...]  # placeholders of pictures and videos in a prompt, never sampled
    vision_modules: tuple[str, ...]  # the vision tower and its projector, by their names in the model

    @property
    def lora_exclude(self) -> str:
        """A pattern (peft's `exclude_modules`) of every module of the vision tower and its projector."""
        return rf"(.*\.)?({'|'.join(map(re.escape, self.vision_modules))})(\..*)?"

    def is_vision(self, name: str) -> bool:
        """Whether a parameter or module of that dotted name belongs to the vision tower or its projector."""
        return not set(self.vision_modules).isdisjoint(name.split("."))


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_INTERN_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")

_FAMILIES = {
    family.model_type: family
    for family in (
        *(
            Family(qwen, 3, True, _QWEN_TOKENS, ("visual",))
            for qwen in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
        ),
        Family("internvl", 1, False, _INTERN_TOKENS, ("vision_tower", "multi_modal_projector")),
    )
}


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`; ModelError for one we do not know."""
    if model_type not in _FAMILIES:
        raise ModelError(
            f"a model's config must name one of the families {', '.join(sorted(_FAMILIES))}, got model_type "
            f"{model_type!r}; choose a model of one of these families"
        )
    return _FAMILIES[model_type]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model with its processor and what we know of it; the transformers sampler's `VisionLanguageModel`.

    `name` is what the user asked for, `path` the folder or hub id it came from. `end_ids` end a completion,
    `forbidden_ids` (picture placeholders) are never sampled. `frame` is the coordinate frame of its boxes.
    """

    model: Any
    processor: Any
    family: Family
    frame: str
    name: str
    path: str
    end_ids: tuple[int, ...]
    forbidden_ids: tuple[int, ...]

    @property
    def base(self) -> Any:
        """The model itself, without an adapter's wrapper."""
        return base_model(self.model)

    @property
    def position_axes(self) -> int:
        return self.family.position_axes

    def seen_size(self, picture_inputs: Mapping[str, torch.Tensor], picture_size: Size) -> Size:
        """The size in pixels that the model saw: from the processor's grid where it has one, else the picture's own.

        A family without a grid writes 0-1000 and its boxes do not depend on the size.
        """
        if not self.family.has_grid:
            return picture_size
        _, rows, columns = picture_inputs["image_grid_thw"][0].tolist()
        patch = self.processor.image_processor.patch_size
        return Size(columns * patch, rows * patch)

    def positions(self, ids: list[int], picture_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The position of each token, `position_axes` x tokens, on the CPU."""
        if self.family.position_axes == 1:
            return torch.arange(len(ids))[None]
        ids_1P = torch.tensor([ids])
        positions_31P, _ = self.base.model.get_rope_index(
            ids_1P,
            mm_token_type_ids=(ids_1P == self.processor.image_token_id).int(),
            image_grid_thw=picture_inputs["image_grid_thw"],
        )
        return positions_31P[:, 0]

    def encode(self, model: Any, pictures: Sequence[PreparedPicture]) -> list[VisualTokens]:
        """Each picture's tokens for the language model, all in one pass of `model`'s vision tower."""
        model = base_model(model)
        quicken_tower(model)
        pixels = torch.cat([p.inputs["pixel_values"] for p in pictures]).to(model.device)
        image_id = self.processor.image_token_id
        lengths = [p.placeholder_ids.count(image_id) for p in pictures]
        if not self.family.has_grid:
            encoded = model.get_image_features(pixel_values=pixels, return_dict=True)
            flat_ND = encoded.pooler_output.flatten(0, 1)
            return [VisualTokens(tokens) for tokens in flat_ND.split(lengths)]
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(model.device)
        encoded = model.get_image_features(pixel_values=pixels, image_grid_thw=grid, return_dict=True)
        layers = encoded.get("deepstack_features") or []
        deep = list(zip(*layers, strict=True)) if layers else [()] * len(pictures)
        return [VisualTokens(tokens, tuple(d)) for tokens, d in zip(encoded.pooler_output, deep, strict=True)]

    def encoder_outputs(self, visual: Sequence[VisualTokens]) -> dict[str, Any]:
        """The tokens of a batch's pictures in order, as the `mm_encoder_outputs` of the model's forward pass."""
        if not self.family.has_grid:
            tokens_1ND = torch.cat([v.tokens_ND for v in visual])[None]
            return {"image": BaseModelOutputWithPooling(pooler_output=tokens_1ND)}
        encoded: Any = BaseModelOutputWithPooling()
        encoded["pooler_output"] = tuple(v.tokens_ND for v in visual)
        if visual[0].deep:
            encoded["deepstack_features"] = list(zip(*(v.deep for v in visual), strict=True))
        return {"image": encoded}


def base_model(model: Any) -> Any:
    """The transformers model inside an adapter's wrapper, or the model itself."""
    peft = sys.modules.get("peft")  # not imported for a model without an adapter
    return model.get_base_model() if peft is not None and isinstance(model, peft.PeftModel) else model
