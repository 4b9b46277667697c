"""Weights that fit their model: every tensor there, none left over, in its shape and a finite number, or a ModelError.

For whole models (in one file or shards) and adapters; a training's checkpoint is one of the two.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from opengrit.core.errors import ModelError, first_line
from opengrit.models.weight_files import (
    ADAPTER_CONFIG,
    StoredTensor,
    require_floats,
    some,
    stored_adapter,
)

_TOLD = {  # transformers' names for what it found, and ours
    "missing_keys": "missing",
    "mismatched_keys": "of another shape",
    "unexpected_keys": "left over",
    "error_msgs": "not read",
}
# Modules were named like this before transformers 4.52; adapters of that time still are.
_OLDER_NAMES = {
    r"^model\.(?=(layers|embed_tokens|norm)\.)": "model.language_model.",
    r"^language_model\.model\.": "model.language_model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^(?=(visual|vision_tower|multi_modal_projector)\.)": "model.",
}
_ADAPTER_NAME = "default"  # peft's, of the one adapter that a model has here


@contextmanager
def without_tables() -> Iterator[None]:
    """For the block, no tables of transformers and no warnings of peft about weights that do not fit: ours are errors."""
    from transformers.utils import logging as transformers_log

    level = transformers_log.get_verbosity()
    transformers_log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys|Some weights of")
            yield
    finally:
        transformers_log.set_verbosity(level)


def require_fit(found: Mapping[str, Any], name: str) -> None:
    """Raise ModelError for what transformers' loading report (`output_loading_info`) says does not fit.

    transformers initializes missing weights at random and drops left-over ones. What it knows to be harmless (a head
    that is the embedding, buffers of older versions) is not in its report.
    """
    shapes = {
        str(key): (tuple(stored), tuple(ours)) for key, stored, ours in found.get("mismatched_keys", ())
    }
    wrong = {told: set(map(str, found.get(kind) or ())) for kind, told in _TOLD.items()}
    wrong["of another shape"] = {f"{k} {list(a)} for {list(b)}" for k, (a, b) in shapes.items()}
    wrong["missing"] -= shapes.keys()
    _refuse(
        wrong,
        f"a model's checkpoint must hold exactly the model's weights in their shapes, that of {name} does not",
    )


def _refuse(wrong: Mapping[str, set[str]], rule: str) -> None:
    """Raise ModelError where there is something wrong: the rule, and of each kind how many and the first few."""
    told = "; ".join(f"{kind} {some(keys)}" for kind, keys in wrong.items() if keys)
    if told:
        raise ModelError(
            f"{rule} ({told}); check that its config and its weights belong together and are complete"
        )


def require_finite(model: Any, name: str) -> None:
    """Raise ModelError for a weight of a model that is no finite number: it answers nothing, and nothing says why."""
    require_finite_tensors(dict((*model.named_parameters(), *model.named_buffers())), name)


def require_finite_tensors(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Raise ModelError where a tensor is NaN or infinite somewhere.

    One pass over the memory, a tensor at a time, without a copy: both show in the least and the greatest.
    """
    wrong = {key: tensor for key, tensor in tensors.items() if not _is_finite(tensor.detach())}
    if wrong:
        read_as = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in wrong.values()}))
        raise ModelError(
            f"weights must be finite, those of {name} are not when read as {read_as} (NaN or infinite in "
            f"{some(wrong)}); use a checkpoint from before it diverged, or copy it again; half precision (float16) "
            "holds no more than 65504"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # torch has no such pass over 8-bit floats
        tensor = tensor.float()
    return all(map(torch.isfinite, torch.aminmax(tensor)))


def load_adapter(model: Any, folder: Path, name: str) -> Any:
    """The model with the folder's adapter on it, trainable. Raises ModelError where the adapter does not fit the model."""
    from peft import PeftModel  # a quarter of a second, for adapters only

    stored = stored_adapter(folder, name)
    require_floats(stored, None, name)
    _require_rank(folder, stored, name)
    how: dict[str, Any] = {"is_trainable": True, "ignore_mismatched_sizes": True}
    if all(
        key.startswith("base_model.") for key in stored
    ):  # else they fit nothing, and peft would call it a bug
        how["key_mapping"] = _OLDER_NAMES
    try:
        with without_tables():
            adapted = PeftModel.from_pretrained(model, str(folder), **how)
            # Again, for the report that `from_pretrained` keeps to itself.
            report = adapted.load_adapter(str(folder), _ADAPTER_NAME, **how)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        ImportError,
        SafetensorError,
        AttributeError,
    ) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ModelError(
            f"an adapter must load onto its base model, {name} does not ({reason}); check that the folder is complete "
            "and its base model is the right one"
        ) from error
    shapes = {key: tensor.shape for key, tensor in stored.items()}
    require_adapter_fit(adapted, shapes, name, report=report)
    return adapted


def _require_rank(folder: Path, stored: Mapping[str, StoredTensor], name: str) -> None:
    """Raise ModelError for a config of far larger adapters than the file holds: peft would make them before it looks."""
    try:
        facts = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        ranks = [facts.get("r"), facts.get("num_virtual_tokens"), *(facts.get("rank_pattern") or {}).values()]
    except (OSError, ValueError, AttributeError):  # peft says what is wrong with it
        return
    asked = max((rank for rank in ranks if isinstance(rank, int)), default=0)
    largest = max((side for tensor in stored.values() for side in tensor.shape), default=0)
    if asked > largest:
        raise ModelError(
            f"an adapter's config and weights belong together, {ADAPTER_CONFIG} of {name} asks for rank {asked} and no "
            f"tensor in its file is larger than {largest}; use the {ADAPTER_CONFIG} of the weights' source"
        )


def require_adapter_fit(
    adapted: Any, shapes: Mapping[str, tuple[int, ...]], name: str, *, report: Any = None
) -> None:
    """Raise ModelError where an adapter's tensors, by name and shape as they are in its file, are not the model's own.

    With peft's `report` of loading, names of another layout count as peft has mapped them.
    """
    from peft import get_peft_model_state_dict

    ours = {
        k: tuple(v.shape) for k, v in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
    }
    wrong: dict[str, set[str]] = {"missing": set(ours) - set(shapes)}
    if report is None:
        wrong["left over"] = set(shapes) - set(
            get_peft_model_state_dict(adapted)
        )  # embeddings may be in the file too
    else:
        plain = re.compile(rf"\.{_ADAPTER_NAME}(?=\.|$)")
        wrong["left over"] = {plain.sub("", key) for key in report.unexpected_keys}
        if not set(ours) & set(shapes):  # saved by another version, with other names for the modules
            wrong["missing"] = {plain.sub("", key) for key in report.missing_keys}
    both = set(ours) & set(shapes)
    wrong["of another shape"] = {
        f"{key} {list(shapes[key])} for {list(ours[key])}" for key in both if ours[key] != tuple(shapes[key])
    }
    _refuse(
        wrong,
        f"an adapter's file must hold exactly the adapter's weights in their shapes, that of {name} does not",
    )
