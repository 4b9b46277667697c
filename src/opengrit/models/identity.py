"""Which model a name stands for: its folder or hub id, and a hash of what is in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from opengrit.data.fingerprint import content_of
from opengrit.models.resolve import base_of, packaged_names, resolve
from opengrit.runs.origin import ModelKind, ModelOrigin

_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
# What a training adds to a checkpoint: it changes no answer.
_NOT_THE_MODEL = ("trainer_state.json", "checkpoint.json")
_ADAPTER = "adapter_config.json"
_NO_ANSWER = ("base_model_name_or_path", "inference_mode", "revision")  # keys of an adapter's config


def identity_of(name: str) -> ModelOrigin:
    """The model that a name stands for. Nothing is asked of the hub: of a hub id, the revision is that downloaded last,
    which is the one that is used once the model is loaded.

    All files of a folder that decide what the model answers are read once in a process: about as long as loading it takes.
    Raises ModelError as `resolve` does.
    """
    path = resolve(name)
    if not Path(path).is_dir():
        return ModelOrigin(name, ModelKind.HUB, revision=_downloaded(path))
    if name in packaged_names():
        return ModelOrigin(name, ModelKind.PACKAGED, sha256=_content(Path(path)))
    folder = Path(path).resolve()
    return ModelOrigin(name, ModelKind.FOLDER, path=str(folder), sha256=_content(folder))


def _content(folder: Path) -> str:
    """A hash of the names and contents of a model's files, and of its base's where it is an adapter."""
    found = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in _SUFFIXES or file.name in _NOT_THE_MODEL or not file.is_file():
            continue
        content = _adapter_content(file) if file.name == _ADAPTER else content_of(str(file))
        found.update(f"{file.name} {content}\n".encode())
    base = base_of(str(folder))
    if Path(base).resolve() != folder.resolve():
        inner = _content(Path(base)) if Path(base).is_dir() else f"{base} {_downloaded(base)}"
        found.update(inner.encode())
    return found.hexdigest()


def _adapter_content(file: Path) -> str | None:
    """A hash of an adapter's config without the name of its base, which may have moved; the base is hashed itself."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return content_of(str(file))
    kept = {key: one for key, one in value.items() if key not in _NO_ANSWER}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _downloaded(hub_id: str) -> str | None:
    """The commit of a hub model's config that was downloaded last; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    try:
        file = try_to_load_from_cache(hub_id, "config.json")
    except ValueError:  # no name that the hub could have
        return None
    return Path(file).parent.name if isinstance(file, str) else None
