"""The doctor on the model: whether it is here and loads, and what its saved processor says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import ModelError, RecipeError
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding
from opengrit.grounding.frames import UNIT_BY_MODEL_TYPE
from opengrit.models.shapes import KNOWN, ModelFacts

if TYPE_CHECKING:
    from opengrit.models.families import Loaded

_AREA = Area.MODEL


def facts_of(name: str) -> ModelFacts | None:
    """A model's numbers by its name on the hub or from its config on this machine; None where neither says."""
    if name in KNOWN:
        return KNOWN[name]
    try:
        return ModelFacts.from_config(_config(name))
    except ModelError:  # reported where the model is loaded
        return None


def _config(name: str) -> dict[str, Any]:
    """The config of a model on this machine, an adapter's base included. Raises ModelError where there is none."""
    from opengrit.models.pretrained import load_config
    from opengrit.models.resolve import base_folder

    config: dict[str, Any] = load_config(base_folder(name), name, local_files_only=True).to_dict()
    return config


def examine_model(context: Context) -> Iterator[Finding]:
    """Loads the model, unless it is not on this machine: nothing is downloaded."""
    from opengrit.models.resolve import base_folder, resolve

    name = context.recipe.model.name
    try:
        folder = base_folder(name)
        own = resolve(name)
    except ModelError as error:
        yield _AREA.error("model", error)
        return
    if not Path(folder).is_dir() and not _is_cached(folder):
        yield _absent(context, folder)
        return
    yield from _padding(own)
    yield from _world(context)
    if context.quick:
        yield _AREA.skipped("model", f"{name} is on this machine; {context.why_without_model}")
        return
    try:
        context.loaded = context.load(context.recipe.model)
    except (ModelError, RecipeError) as error:
        yield _AREA.error("chat template" if "chat template" in str(error) else "model", error)
        return
    yield from _loaded(context, context.loaded)


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _absent(context: Context, name: str) -> Finding:
    found = f"{name} is not on this machine, so nothing that needs it was checked"
    facts = context.facts
    size = "" if facts is None else f" (about {facts.parameters() * 2 / 1e9:.0f} GB)"
    if context.environment.offline:
        return _AREA.fail(
            "model",
            f"{found}, and HF_HUB_OFFLINE forbids downloading it",
            f"fetch it first: hf download {name}{size}; or name a folder",
        )
    return _AREA.warn(
        "model", found, f"opengrit train would download it{size}; to check it first: hf download {name}"
    )


def _padding(folder: str) -> Iterator[Finding]:
    """What the saved tokenizer says of padding. We set it to the left on loading; other programs take it as it is."""
    file = Path(folder) / "tokenizer_config.json"
    if not file.is_file():
        return
    try:
        side = json.loads(file.read_text(encoding="utf-8")).get("padding_side")
    except (OSError, ValueError, AttributeError):  # reported where the model is loaded
        return
    if side == "right":
        yield _AREA.warn(
            "padding side",
            f'{file.name} of the model pads on the right ("padding_side": "right"), but completions follow their '
            "prompts: opengrit pads on the left anyway, other trainers and servers may not",
            f'write "padding_side": "left" in {file}',
        )


def _world(context: Context) -> Iterator[Finding]:
    """Whether a model that knows stickers only is to learn from other pictures."""
    from opengrit.models.sticker_models import FOR_PHOTOS, knows_stickers_only, of_another_world

    foreign = of_another_world(context.examples)
    if not foreign or not knows_stickers_only(context.recipe.model.name):
        return
    yield _AREA.warn(
        "what it knows",
        f"{context.recipe.model.name} knows emoji stickers only, but the pictures of {len(foreign)} of "
        f"{len(context.examples)} rows show something else",
        f"for photos name a model of the hub, for example model: {FOR_PHOTOS}",
    )


def _loaded(context: Context, loaded: Loaded) -> Iterator[Finding]:
    parameters = sum(p.numel() for p in loaded.model.parameters())
    yield _AREA.ok(
        "model",
        f"{loaded.name} loads: family {loaded.family.model_type}, {parameters:,} parameters; its chat template shows "
        "the picture once, and it pads on the left",
    )
    recipe = context.recipe
    try:
        from opengrit.training.trainable_weights import check_lora, check_model

        check_model(recipe.model, recipe.lora)
        check_lora(loaded, recipe.lora)
    except RecipeError as error:
        yield _AREA.error("lora", error)
    own, chosen = loaded.family.model_type, loaded.frame
    if unit_of(chosen) != unit_of(own):
        yield _AREA.warn(
            "frame",
            f"boxes are read in the frame {chosen}, but models of type {own} write {unit_of(own)}",
            "leave model.frame out (a trained model keeps its own in opengrit.json), unless it was trained that way",
        )


def unit_of(frame: str) -> str:
    """The unit that a frame's numbers are in: "pixels", "thousand" or "unit"."""
    return UNIT_BY_MODEL_TYPE[frame].value if frame in UNIT_BY_MODEL_TYPE else frame
