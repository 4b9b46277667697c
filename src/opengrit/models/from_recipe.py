"""A recipe's model section as a model in memory: to train, or to ask."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import ModelError, RecipeError
from opengrit.recipes.training_recipe import Model

if TYPE_CHECKING:
    from opengrit.models.families import Loaded


def load_to_train(model: Model) -> Loaded:
    """The model ready to train: weights in 32 bits (computing in 16 keeps them) unless the section says otherwise.

    Raises RecipeError where quantization cannot be had here, and ModelError as `opengrit.models.load` does.
    """
    return _load(model, dtype=model.dtype or "float32", device=None)


def load_to_ask(model: Model, *, device: str | None = None) -> Loaded:
    """The model ready to answer, on `device` (default: the GPU if there is one); raises as `load_to_train` does."""
    return _load(model, dtype=model.dtype, device=device)


def check_quantization(model: Model) -> None:
    """Raise RecipeError where the section asks for 4 bits and this machine or this model has none."""
    if model.quantization is None:
        return
    import torch

    from opengrit.models.families import names_adapter

    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"model.quantization {model.quantization} needs bitsandbytes, it is not installed; install opengrit[qlora] "
            "or set model.quantization: null"
        )
    if not torch.cuda.is_available():
        raise RecipeError(
            f"model.quantization {model.quantization} needs a GPU, there is none on this machine; "
            "set model.quantization: null"
        )
    if names_adapter(model.name):
        raise RecipeError(
            f"a whole model is quantized, {model.name} is an adapter; set model.quantization: null, or name its base"
        )


def _load(model: Model, *, dtype: str | None, device: str | None) -> Loaded:
    check_quantization(model)
    if model.quantization is not None:
        return _load_in_4_bits(model, device=device)
    import torch

    from opengrit.models.families import load

    return load(
        model.name,
        dtype=None if dtype is None else getattr(torch, dtype),
        device=device,
        frame=model.frame,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        max_tiles=model.max_tiles,
    )


def quantization_config() -> Any:
    """QLoRA's: NormalFloat of 4 bits, its constants quantized too, computed with in bfloat16 (arXiv 2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _load_in_4_bits(model: Model, *, device: str | None) -> Loaded:
    import torch
    from transformers import AutoModelForImageTextToText

    from opengrit.core.weights import require_own_code, require_safetensors
    from opengrit.models.families import describe, load_config, load_processor, resolve, saved_frame

    path = resolve(model.name)
    require_safetensors(path, model.name)
    require_own_code(load_config(path, model.name), model.name)
    processor = load_processor(
        path,
        name=model.name,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        max_tiles=model.max_tiles,
    )
    place = torch.device(device or f"cuda:{torch.cuda.current_device()}")
    try:
        weights = AutoModelForImageTextToText.from_pretrained(
            path,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.bfloat16,
            quantization_config=quantization_config(),
            device_map={"": place},
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"a model must load in 4 bits, {model.name} does not ({str(error).strip().splitlines()[0]}); "
            "check that the folder is complete, or set model.quantization: null"
        ) from error
    frame = model.frame or saved_frame(path)
    return describe(weights.eval(), processor, frame=frame, name=model.name, path=path)
