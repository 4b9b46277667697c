"""transformers' `from_pretrained`, without remote code, and with errors that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from opengrit.core.errors import ModelError, first_line
from opengrit.core.escaping import shortened


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
        if not Path(path).is_dir():
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
