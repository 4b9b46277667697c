"""Weights that are sharded over processes (FSDP2): whole on each of them while a step runs, and whole in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from trl import GRPOConfig, SFTConfig

from opengrit.core.errors import RecipeError
from opengrit.models.families import Loaded


def asks_for_fsdp() -> bool:
    """Whether accelerate is to shard with FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def check_sharding(args: GRPOConfig | SFTConfig) -> None:
    """Raise RecipeError for ways of sharding weights that are not tested to learn what one process learns."""
    zero = args.deepspeed_plugin.zero_stage if args.deepspeed_plugin is not None else 0
    if zero == 3 or args.fsdp:
        raise RecipeError(
            f"weights are whole on every process or sharded by FSDP2, {'ZeRO-3' if zero == 3 else 'fsdp:'} is "
            "configured; use the file that opengrit recipe copy accelerate/fsdp2 writes, or accelerate/ddp, or "
            "accelerate/zero2"
        )
    if not asks_for_fsdp():
        return
    version, kept = os.environ.get("FSDP_VERSION", "1"), os.environ.get("FSDP_STATE_DICT_TYPE", "")
    if version != "2" or kept != "FULL_STATE_DICT":
        raise RecipeError(
            f"weights are sharded by version 2 of FSDP and saved whole, got fsdp_version {version} and "
            f"fsdp_state_dict_type {kept or 'SHARDED_STATE_DICT'}; use the file that opengrit recipe copy "
            "accelerate/fsdp2 writes"
        )


def shard_by_layers(loaded: Loaded) -> None:
    """Name the modules that accelerate shards one by one: layers, and the vision tower and projector as wholes.

    The tower runs ahead of the model's own forward pass. Weights that it shared a unit with would be resharded before
    its own gradient is there.
    """
    names = loaded.family.vision_modules
    vision = {type(m).__name__ for name, m in loaded.model.named_modules() if name.split(".")[-1] in names}
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = ",".join(sorted({*loaded.model._no_split_modules, *vision}))


def gather_weights(*models: Any) -> None:
    """Every weight on every process, until the next backward pass has ended; nothing where they are whole anyway.

    All processes call this together. They make different numbers of passes to sample rollouts and to score them,
    and no pass may wait for another process's.
    """
    for model in models:
        if _is_sharded(model):
            model.set_reshard_after_forward(False)
            model._get_fsdp_state()._lazy_init()  # parts run ahead of the whole
            for part in (module for module in model.modules() if _is_sharded(module)):
                # Only itself, which is there: what would be prefetched depends on the passes before.
                part.set_modules_to_backward_prefetch([part])
                part.unshard()


def whole_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """All weights, on the CPU of the first process, where they are sharded; all processes call this together."""
    if not _is_sharded(model):
        return None
    whole: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(whole)


def set_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy whole weights into the model, or each process's shard of them. Every tensor must be there, and no other."""
    if _is_sharded(model):
        set_model_state_dict(
            model, dict(weights), options=StateDictOptions(full_state_dict=True, strict=True)
        )
    else:
        model.load_state_dict(weights, strict=True)


def model_class(model: Any) -> Any:
    """The transformers class of a model, also where sharding has given it another."""
    return type(model).__mro__[2] if _is_sharded(model) else type(model)


def drop_second_copy(folder: Path) -> None:
    """Remove from a checkpoint what accelerate writes beside `model.safetensors`: the same weights, as a pickle."""
    (folder / "pytorch_model_fsdp.bin").unlink(missing_ok=True)


def _is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)
