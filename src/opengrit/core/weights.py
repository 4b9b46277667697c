"""Safe model files: weights in safetensors only, and a config that names no code on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opengrit.core.errors import ModelError
from opengrit.core.messages import first_few

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")  # reading one can run what is in it


def require_safetensors(path: str | Path, name: str) -> None:
    """Raise ModelError for a folder whose weights, of a model or of an adapter, are pickles only.

    A hub id passes: loading requests nothing but safetensors from the hub.
    """
    folder = Path(path)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"weights are read from safetensors only, {name} has {first_few(pickles)} in {folder} (pickles, which can "
            "run code when they are read); save it again as safetensors on a machine you trust, with save_pretrained "
            "of a current transformers or peft, or use a version in safetensors"
        )


def refuse_remote_code(config: Any, name: str) -> None:
    """Raise ModelError for a config that names code on the hub as its attention: it would be fetched and run."""
    for part in (config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", {}))):
        attention = getattr(part, "_attn_implementation", None)
        named = attention.values() if isinstance(attention, dict) else [attention]
        for one in named:
            if isinstance(one, str) and "/" in one:
                raise ModelError(
                    f"only installed code may run, the config of {name} names {one!r} on the hub as its attention; "
                    'remove "attn_implementation" from its config.json'
                )
