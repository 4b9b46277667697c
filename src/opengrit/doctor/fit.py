"""Whether a recipe fits a machine: its plan and its memory estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opengrit.core.errors import RecipeError
from opengrit.models.memory_estimate import (
    FLOAT,
    HALF,
    NF4,
    Plan,
    Sharding,
    Trainable,
)
from opengrit.models.shapes import KNOWN, ModelFacts, VisionShape
from opengrit.recipes.model_section import Model
from opengrit.recipes.training_recipe import Recipe

PROMPT_TOKENS = 150  # of the chat template, a question and GRIT's instruction, without the picture; generous
_DECODED_AT_ONCE = 192  # rows that the transformers sampler writes together
_TILE_TOKENS = 256  # that InternVL makes of one tile of 448 x 448 pixels
# What the processors of the hub allow where a recipe sets no bound.
_MOST_PIXELS = {"qwen2_vl": 12_845_056, "qwen2_5_vl": 12_845_056, "qwen3_vl": 16_777_216}
_MOST_TILES = 12


@dataclass(frozen=True, slots=True)
class Machine:
    """What a recipe is run on. `device_gb` is the memory of one device in GB of 10^9 bytes."""

    name: str
    devices: int
    device_gb: float
    sharding: Sharding = Sharding.NONE


def facts_for(name: str) -> ModelFacts:
    """The facts of a model of the hub by its name. Raises RecipeError for one that is not in the table."""
    if name not in KNOWN:
        raise RecipeError(
            f"a memory estimate by name knows {', '.join(KNOWN)}, got {name!r} under model:; "
            "for another model use ModelFacts.from_config with its config"
        )
    return KNOWN[name]


def picture_tokens(recipe: Recipe, vision: VisionShape) -> int:
    """The most tokens that a picture can take under the recipe's bounds."""
    if vision.is_internvl:
        tiles = _MOST_TILES if recipe.model.max_tiles is None else recipe.model.max_tiles
        return (tiles + (tiles > 1)) * _TILE_TOKENS  # with the thumbnail
    pixels = recipe.model.max_pixels or _MOST_PIXELS[vision.model_type]
    return pixels // (vision.patch * vision.merge) ** 2


def _weight_bytes(model: Model) -> float:
    """Of one weight as the recipe keeps it."""
    if model.quantization is not None:
        return NF4
    return HALF if model.dtype == "bfloat16" else FLOAT


def plan_of(recipe: Recipe, facts: ModelFacts, machine: Machine) -> Plan:
    """How the recipe trains on that machine."""
    train = recipe.train
    rows = train.per_device_train_batch_size
    return Plan(
        trainable=Trainable.ALL if recipe.lora is None else Trainable.ADAPTERS,
        questions=math.ceil(rows / train.num_generations),
        rows=rows,
        decoded_rows=min(_DECODED_AT_ONCE, math.ceil(train.completions_per_step / machine.devices)),
        prompt_tokens=PROMPT_TOKENS,
        picture_tokens=picture_tokens(recipe, facts.vision),
        completion_tokens=train.max_completion_length,
        weight_bytes=_weight_bytes(recipe.model),
        compute_bytes=HALF if train.bf16 else FLOAT,
        optimizer_bytes=2 if train.optim.endswith("8bit") else 2 * FLOAT,
        reference=train.beta > 0,
        train_vision=not recipe.freeze_vision,
        checkpointing=train.gradient_checkpointing,
        lora_rank=recipe.lora.r if recipe.lora else 0,
        sharding=machine.sharding,
        devices=machine.devices,
    )
