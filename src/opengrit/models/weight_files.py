"""What a folder's weight files hold, read from their headers alone, and whether a config can be built from them.

No tensor is read and no model is built. A hub id is looked at where it is in the cache; else loading it finds the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from opengrit.core.errors import ModelError, first_line
from opengrit.core.escaping import shortened
from opengrit.core.messages import first_few
from opengrit.models.shapes import ModelFacts, Part

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_FLOATS = {"F64", "F32", "F16", "BF16"}
_COUNTERS = (
    "position_ids",
    "num_batches_tracked",
    "relative_position_index",
)  # whole numbers by their nature
_LARGER = 2  # a config may ask for this many times the numbers in the files before it is refused unbuilt


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a file's header announces it; `dtype` in safetensors' words ("BF16")."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def some(keys: Iterable[Any]) -> str:
    """How many keys there are, and the first few by name."""
    names = sorted(map(str, keys))
    return f"{len(names)}: {first_few(names, longest=120)}"


def stored_model(path: str | Path, name: str, *, config: Any = None) -> dict[str, StoredTensor]:
    """The tensors of a whole model's folder, in one file or several; empty where there is none, and for a hub id.

    A config may name the file (`transformers_weights`). Raises ModelError for a file that is outside the folder, cannot
    be read or is not whole, and for a tensor that two files hold.
    """
    folder = Path(path)
    if not folder.is_dir():
        return {}
    return _stored(_model_files(folder, name, getattr(config, "transformers_weights", None)), name)


def stored_adapter(folder: Path, name: str) -> dict[str, StoredTensor]:
    """The tensors of an adapter's folder. Raises ModelError where they are not there, outside it, or not whole."""
    file = folder / ADAPTER
    if not file.is_file():
        raise ModelError(
            f"an adapter's folder holds {ADAPTER}, {folder} does not; name the folder that save_pretrained wrote"
        )
    require_inside(folder, file, name)
    return _stored([file], name)


def require_inside(folder: Path, file: Path, name: str) -> None:
    """Raise ModelError for a file of a model's folder that is a link to somewhere else.

    The hub's own cache is laid out in links from `snapshots` to `blobs` of one repository; these are inside.
    """
    real, root = file.resolve(), folder.resolve()
    if real.is_relative_to(root):
        return
    if root.parent.name == "snapshots" and real.is_relative_to(root.parent.parent / "blobs"):
        return
    raise ModelError(
        f"a model's files must be in its folder, {file.name} of {name} is a link to {real}; copy the file to {file}"
    )


def _model_files(folder: Path, name: str, named: str | None) -> list[Path]:
    """The files that transformers would read; none where they are not there.

    That is the one that a config names, else `model.safetensors`, else what an index lists.
    """
    found = next(
        (folder / file for file in ([named] if named else [WHOLE, INDEX]) if (folder / file).is_file()), None
    )
    if found is None:
        return []
    require_inside(folder, found, name)
    return [found] if found.suffix != ".json" else _files_of(found, folder, name)


def _files_of(index: Path, folder: Path, name: str) -> list[Path]:
    """The shards of an index, each of them there and inside the folder."""
    files = []
    for shard in _shards(index, name):
        if Path(shard).name != shard or "\\" in shard or shard in (".", ".."):
            raise ModelError(
                f"a model's shards must be in its folder, {index.name} of {name} names {shortened(shard)!r}; write "
                "names of files in this folder into its weight_map, or save the model again"
            )
        file = folder / shard
        if not file.is_file():
            raise ModelError(
                f"a model needs all its shards, {name} lacks {shard}, which its {index.name} names; copy or download it "
                "again"
            )
        require_inside(folder, file, name)
        files.append(file)
    return files


def _shards(index: Path, name: str) -> list[str]:
    """The names of the files that an index maps tensors to."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        shards = sorted(set(found["weight_map"].values()))
        if not isinstance(found["metadata"], dict):
            raise TypeError("metadata is no object")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"an index of shards needs metadata and a weight_map from tensors to files, {index.name} of {name} does not "
            f"have them ({first_line(error)}); copy or download it again, or save the model again"
        ) from error
    if not all(isinstance(shard, str) for shard in shards):
        raise ModelError(
            f"an index of shards must map tensors to file names, {index.name} of {name} does not; save the model again"
        )
    return shards


def _stored(files: Iterable[Path], name: str) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    twice = set()
    for file in files:
        for key, tensor in _header(file, name).items():
            if key in found:
                twice.add(key)
            found[key] = tensor
    if twice:
        raise ModelError(
            f"a tensor must be in only one shard, those of {name} hold some twice ({some(twice)}); save the model again"
        )
    return found


def _header(file: Path, name: str) -> dict[str, StoredTensor]:
    try:
        with safe_open(file, framework="np") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
            return {key: StoredTensor(file, tuple(s.get_shape()), s.get_dtype()) for key, s in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"a model's weights must be readable and complete, {file.name} of {name} is not ({first_line(error)}); copy "
            "or download it again"
        ) from error


def require_floats(stored: Mapping[str, StoredTensor], config: Any, name: str) -> None:
    """Raise ModelError for weights kept as whole numbers or in 8 bits where the config does not say how to read them.

    transformers would take the numbers for the weights themselves.
    """
    if getattr(config, "quantization_config", None):
        return
    other = {
        key: tensor
        for key, tensor in stored.items()
        if tensor.dtype not in _FLOATS and not key.endswith(_COUNTERS)
    }
    if other:
        kinds = ", ".join(sorted({tensor.dtype for tensor in other.values()}))
        raise ModelError(
            f"weights are floating-point numbers of 16, 32 or 64 bits, {name} keeps some as {kinds} ({some(other)}) and "
            "has no quantization_config that says how to read them; use the model from before quantization"
        )


def require_buildable(config: Any, stored: Mapping[str, StoredTensor], name: str) -> None:
    """Raise ModelError for a config that asks for far more than the files hold: building it could take hours and all memory.

    Half of the layers or of the numbers must be there; what is missing then is found by loading. Without files (a hub id)
    nothing is compared.
    """
    if not stored or getattr(config, "quantization_config", None):
        return
    layers = _layers(config)
    if layers > _LARGER * len(stored):
        raise ModelError(
            f"a model's config and weights belong together, that of {name} asks for {layers} layers and its files hold "
            f"{len(stored)} tensors; use the config.json of the weights' source"
        )
    try:
        facts = ModelFacts.from_config(config.to_dict())
        wanted = sum(facts.parameters(part) for part in (Part.LAYERS, Part.VISION))
        wanted += facts.text.vocabulary * facts.text.hidden
    except (
        ModelError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ):  # loading says what is wrong with it
        return
    there = sum(prod(tensor.shape) for tensor in stored.values())
    if wanted > _LARGER * there:
        raise ModelError(
            f"a model's config and weights belong together, that of {name} asks for {wanted} numbers and its files hold "
            f"{there}; use the config.json of the weights' source"
        )


def _layers(config: Any) -> int:
    """The layers of the language model and of the tower, as far as the config gives whole numbers."""
    counts = [
        getattr(part, key, 0)
        for part in (config.get_text_config(), getattr(config, "vision_config", None))
        for key in ("num_hidden_layers", "depth")
    ]
    return sum(count for count in counts if isinstance(count, int))
