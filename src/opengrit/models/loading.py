"""Load a model in one descent: name, unsafe files refused, config, processor, weights, adapter.

`load` takes a name; `load_for_training` and `load_for_inference` take a recipe's model section.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from opengrit.core.collector import paused_collector
from opengrit.core.errors import RecipeError
from opengrit.core.weights import refuse_remote_code, require_safetensors
from opengrit.models.families import Loaded, family_of
from opengrit.models.pretrained import load_config, load_pretrained
from opengrit.models.processors import load_processor, prepare_processor
from opengrit.models.resolve import base_of, names_adapter, resolve, saved_frame
from opengrit.models.sight import require_sight
from opengrit.models.weight_files import require_buildable, require_floats, stored_model
from opengrit.models.weights import load_adapter, require_finite, require_fit, without_tables

if TYPE_CHECKING:
    from opengrit.recipes.model_section import Model

_PLACEHOLDER_IDS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
)
_BRACKET_IDS = ("start_image_token_id", "end_image_token_id")


def load_for_training(model: Model) -> Loaded:
    """The model ready to train: weights in 32 bits unless the section says otherwise. Raises as `load` does."""
    return _load_section(model, dtype=model.dtype or "float32")


def load_for_inference(model: Model, *, device: str | None = None) -> Loaded:
    """The model ready to answer, on `device` (default: the GPU if there is one); raises as `load` does."""
    return _load_section(model, dtype=model.dtype, device=device)


def _load_section(model: Model, *, dtype: str | None, device: str | None = None) -> Loaded:
    return load(
        model.name,
        dtype=None if dtype is None else getattr(torch, dtype),
        device=device,
        **model.model_dump(exclude={"name", "dtype"}),
    )


def check_quantization(name: str, quantization: str | None) -> None:
    """Raise RecipeError where 4 bits are asked for and this machine or this model cannot have them."""
    if quantization is None:
        return
    rule = f"model.quantization {quantization} needs"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"{rule} bitsandbytes, which is not installed; install opengrit[qlora] or set model.quantization: null"
        )
    if names_adapter(name):
        raise RecipeError(
            f"only whole models can be quantized, {name} is an adapter; set model.quantization: null, or name its base"
        )


def load(
    name: str,
    *,
    dtype: torch.dtype | str | None = None,
    quantization: str | None = None,
    device: str | torch.device | None = None,
    frame: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_tiles: int | None = None,
) -> Loaded:
    """The model and processor of a packaged name, a folder (model, adapter or run) or a hub id, in evaluation mode.

    `dtype` None is the checkpoint's own on a GPU and 32 bits on a CPU, "auto" the checkpoint's own anywhere;
    `quantization` "nf4" keeps a whole model's weights in 4 bits, whatever `dtype` says. `device` defaults to
    the GPU if there is one. `frame` overrides the family's coordinate frame. `min_pixels` and `max_pixels` bound the
    resized picture (width x height, Qwen families), `max_tiles` the tiles a picture is cut into (InternVL).
    Raises ModelError for an unknown name, family or folder, for weights that do not fit (missing, left over, of another
    shape, no finite numbers, damaged), for a model that does not see the picture, and where a bound does not take effect;
    RecipeError where quantization is impossible here.
    """
    check_quantization(name, quantization)
    path = resolve(name)
    base_path = base_of(path)
    for folder in dict.fromkeys((path, base_path)):
        require_safetensors(folder, name)
    with paused_collector():  # most of transformers is imported here
        config = load_config(base_path, name)
        refuse_remote_code(config, name)
        family_of(config.model_type)  # an unknown family ends here
        stored = stored_model(base_path, name, config=config)
        require_floats(stored, config, name)
        require_buildable(config, stored, name)
        processor = load_processor(
            path,
            base_path=base_path,
            name=name,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            max_tiles=max_tiles,
        )
    if quantization is None:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = _load_weights(
            base_path, name, dtype=dtype or ("auto" if device.type == "cuda" else torch.float32)
        )
        if base_path != path:
            model = _adapted(model, path, name)
        model = model.to(device)
    else:
        model = _load_in_4_bits(base_path, name, device)
    require_finite(model, name)
    loaded = describe(model.eval(), processor, frame=frame or saved_frame(path), name=name, path=path)
    require_sight(loaded)
    return loaded


def _load_weights(path: str, name: str, **how: Any) -> Any:
    """The model, with every weight from its checkpoint: transformers would initialize missing ones at random."""
    with without_tables():
        model, found = load_pretrained(
            "AutoModelForImageTextToText",
            path,
            name,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            **how,
        )
    require_fit(found, name)
    return model


def _load_in_4_bits(path: str, name: str, device: str | torch.device | None) -> Any:
    if device is None:
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = _load_weights(
        path, name, dtype=dtype, quantization_config=quantization_config(dtype), device_map={"": device}
    )
    for module in model.modules():
        # On a CPU with AVX512-BF16 bitsandbytes repacks weights when they are first evaluated, for a kernel that needs
        # inputs in whole blocks and has no backward pass: a training that evaluates first could not learn.
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model


def quantization_config(dtype: torch.dtype = torch.bfloat16) -> Any:
    """QLoRA's: 4-bit NormalFloat with double quantization, computing in `dtype` (arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _adapted(model: Any, path: str, name: str) -> Any:
    adapted = load_adapter(model, Path(path), name)
    for adapter in adapted.peft_config.values():  # on saving, peft would ask the hub for a packaged name
        adapter.base_model_name_or_path = model.name_or_path
    return adapted


def describe(
    model: Any, processor: Any, *, frame: str | None = None, name: str = "", path: str = ""
) -> Loaded:
    """A model and processor that are in memory already, as `Loaded`. Prepares the processor as `load_processor` does."""
    family = family_of(model.config.model_type)
    prepare_processor(processor, name or path or family.model_type)
    tokenizer = processor.tokenizer
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    ends: set[int] = {i for i in (tokenizer.eos_token_id, *declared) if i is not None}
    named = [getattr(model.config, key, None) for key in _PLACEHOLDER_IDS]
    named += [getattr(processor, key, None) for key in ("image_token_id", *_BRACKET_IDS)]
    vocabulary = tokenizer.get_vocab()
    named += [vocabulary.get(token) for token in family.picture_tokens]
    placeholders = {int(i) for i in named if i is not None}
    rows = model.get_output_embeddings().weight.shape[0]
    padding = set(range(len(tokenizer), rows))  # rows of the matrix that stand for no token
    return Loaded(
        model=model,
        processor=processor,
        family=family,
        frame=frame or family.model_type,
        name=name,
        path=path,
        end_ids=tuple(sorted(ends)),
        forbidden_ids=tuple(sorted((placeholders - ends) | padding)),
    )
