"""transformers' `from_pretrained`, without remote code, and with errors that say what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from opengrit.core.errors import ModelError, first_line
from opengrit.core.escaping import shortened

_LAYER_KEYS = ("num_hidden_layers", "depth", "num_layers", "n_layer")
MAKERS_INTERNVL = "internvl_chat"  # the model_type of InternVL's configs in its makers' layout
_MOST_LAYERS = 10_000  # far beyond any model; transformers makes lists of that length before it checks them


def load_config(path: str, name: str, **kwargs: Any) -> Any:
    """A model's config; ModelError where there is none, it has wrong values, or asks for more layers than any model has."""
    file = Path(path) / "config.json"
    if file.is_file():
        require_layers(file, name)
        if _model_type(file) == MAKERS_INTERNVL:
            raise _in_makers_layout(name, path)
    return load_pretrained("AutoConfig", path, name, **kwargs)


def require_layers(file: Path, name: str) -> None:
    """Raise ModelError for a config that asks for more layers than any model has."""
    layers = _most_layers(file)
    if layers > _MOST_LAYERS:
        raise ModelError(
            f"a model's config and weights belong together, that of {name} asks for {layers} layers, which no model has "
            f"(the limit is {_MOST_LAYERS}); use the config.json of the weights' source"
        )


def _model_type(file: Path) -> str | None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = config.get("model_type") if isinstance(config, dict) else None
    return found if isinstance(found, str) else None


def _in_makers_layout(name: str, folder: str) -> ModelError:
    return ModelError(
        f"only installed code may run, {name} is an InternVL in its makers' layout, which needs remote code; convert it "
        f"(this runs no code of the model): opengrit convert internvl {folder} --out NEW, and name NEW"
    )


def _most_layers(file: Path) -> int:
    """The largest number of layers that a config names, in any of its parts; 0 where it cannot be read."""
    try:
        parts: list[Any] = [json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError):
        return 0
    most = 0
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
            most = max([most, *(part[key] for key in _LAYER_KEYS if isinstance(part.get(key), int))])
    return most


def load_pretrained(auto_class: str, path: str, name: str, **kwargs: Any) -> Any:
    """`transformers.<auto_class>.from_pretrained`, with a ModelError that says what to do where it fails."""
    import transformers

    try:
        return getattr(transformers, auto_class).from_pretrained(path, trust_remote_code=False, **kwargs)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        SafetensorError,
        StrictDataclassError,
    ) as error:  # files of another shape than transformers expects, or a package they ask for
        if (
            type(error).__name__ == "OutOfMemoryError"
        ):  # torch's, which this file does without: no fault of the model
            raise
        reason = _reason(error)
        remedy = "check that the folder is complete (config.json, weights, tokenizer, processor)"
        if "custom code" in str(error) or "trust_remote_code" in str(error):
            if "internvl" in name.lower() and not Path(path).is_dir():
                raise _in_makers_layout(
                    name, f"FOLDER (after hf download {name} --local-dir FOLDER)"
                ) from error
            remedy = "remote code is never run: use a version that transformers has a class for"
        elif not Path(path).is_dir():
            offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
            remedy = (
                "HF_HUB_OFFLINE is set, so only downloaded models can be used: unset it or name a folder"
                if offline
                else "check its name and the network, or name a folder"
            )
        raise ModelError(
            f"a model must load through transformers' {auto_class}, {name} does not ({reason}); {remedy}"
        ) from error


def _reason(error: Exception) -> str:
    """What an error says in a line; of a config's wrong value both lines, since the first only names the field."""
    if isinstance(error, StrictDataclassError):
        return shortened(" ".join(str(error).split()), 300)
    return shortened(first_line(error), 300)
