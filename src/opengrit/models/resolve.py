"""What a model's name stands for, and what its folder says beside the weights: an adapter's base, a frame of its own."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from opengrit.core.errors import ModelError, first_line
from opengrit.models.weight_files import ADAPTER_CONFIG, require_inside
from opengrit.runs.folder import CHECKPOINTS, FINAL, RECIPE, RunDir

if TYPE_CHECKING:
    from opengrit.models.families import Loaded

_PACKAGED_FOLDER = "models/packaged"
_OWN_FILE = "opengrit.json"
_CONFIG_FILE = "config.json"


def packaged_names() -> list[str]:
    """The names of the models that come with the package."""
    folder = resources.files("opengrit") / _PACKAGED_FOLDER
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())


def resolve(name: str) -> str:
    """The folder or hub id that a model's name stands for.

    A packaged name gives its folder in the package; a run's folder gives its `final` folder; a folder with a model or
    an adapter gives itself; `owner/name` that is no folder, where `owner` is none either, is taken for a hub id.
    Raises ModelError for the rest.
    """
    if name in packaged_names():
        return str(resources.files("opengrit") / _PACKAGED_FOLDER / name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        for folder in (path, path / FINAL):
            if (folder / "config.json").is_file() or (folder / ADAPTER_CONFIG).is_file():
                return str(folder)
        raise _no_model_in(path)
    owner, slash, repository = name.partition("/")
    looks_like_hub_id = (
        bool(slash and owner and repository) and "/" not in repository and owner not in (".", "..", "~")
    )
    if path.is_absolute() or not looks_like_hub_id:
        raise ModelError(
            f"a model is a packaged name ({', '.join(packaged_names()) or 'none is installed'}), a folder or a hub id "
            f"(owner/name), {name!r} is not; check the spelling"
        )
    if any(Path(owner).glob(f"*/{RECIPE}")):  # a misspelt run: asking the hub would take long and say less
        raise ModelError(
            f"a model is an existing folder or a hub id, there is no {repository} in {owner}/; check the spelling"
        )
    return name


def _no_model_in(path: Path) -> ModelError:
    """What is wrong with a folder that holds neither a model nor an adapter: often that of an unfinished training."""
    run = RunDir(path.parent if path.name == CHECKPOINTS else path)
    checkpoints = run.checkpoints()
    if not checkpoints:
        return ModelError(
            f"a model's folder holds config.json or adapter_config.json, {path} holds neither; "
            "name the folder that save_pretrained wrote"
        )
    newest = checkpoints[-1]
    if (run.path / FINAL).is_dir():
        return ModelError(
            f"a model is a single folder, {path} holds checkpoints; name {run.path} for the trained model, or one "
            f"checkpoint, such as {newest}"
        )
    return ModelError(
        f"a run has a model when its training has ended, {run.path} has not ended; finish it with --resume, or name a "
        f"checkpoint, such as {newest}"
    )


def base_folder(name: str) -> str:
    """The folder or hub id of a model by its name; of an adapter, that of its base. Raises ModelError as `resolve` does."""
    return base_of(resolve(name))


def base_of(path: str) -> str:
    """The folder or hub id of the base model that an adapter folder names; `path` itself where it is no adapter folder.

    A base is a packaged name, a hub id, or a folder given explicitly: in the adapter's own folder, below the working
    folder, or by its whole path, as peft and our own runs write it. A path that climbs with "..", and one that leads out of
    the adapter's folder through a link, is refused: the file may come from anybody. So is a base that is an adapter.
    """
    recorded = _recorded_base(path)
    if recorded is None:
        return path
    file = Path(path) / ADAPTER_CONFIG
    if ".." in Path(recorded).parts or ".." in PureWindowsPath(recorded).parts:
        raise ModelError(
            f'an adapter names its base model by a hub id or a folder without "..", {file} has {recorded!r}; write the '
            "hub id or the folder's absolute path as its base_model_name_or_path"
        )
    base = _resolved_base(recorded, file)
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"an adapter's base must be a whole model, that of {path} is itself an adapter ({base}); merge that one "
            "into its base first (peft's merge_and_unload), or name a whole model as base_model_name_or_path"
        )
    return base


def _resolved_base(recorded: str, file: Path) -> str:
    own = file.parent / recorded
    if not Path(recorded).is_absolute() and (own / _CONFIG_FILE).is_file():
        require_inside(file.parent, own, str(file.parent))
        return str(own)
    try:
        return resolve(recorded)
    except ModelError as error:
        raise ModelError(
            f"an adapter's base model must be here or on the hub, {file} names {recorded!r}, which is not ({error}); "
            "write its hub id or its present folder as base_model_name_or_path"
        ) from error


def _recorded_base(path: str) -> str | None:
    """The name of the base model that an adapter folder has; None where `path` is no adapter folder."""
    file = Path(path) / ADAPTER_CONFIG
    if not path or not file.is_file():
        return None
    require_inside(Path(path), file, path)
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        recorded = None
    if not isinstance(recorded, str) or not recorded:
        raise ModelError(
            f"an adapter names its base model, {file} does not; add base_model_name_or_path to it"
        )
    return recorded


def names_adapter(name: str) -> bool:
    """Whether a model's name stands for an adapter. Raises ModelError for a name that stands for nothing."""
    return (Path(resolve(name)) / ADAPTER_CONFIG).is_file()


def save_origin(folder: Path, loaded: Loaded) -> None:
    """Write beside weights trained from `loaded` what they do not say: a frame of its own, and an adapter's base by name.

    peft records the base's folder on this machine; its name (packaged, or a hub id) loads on another machine too.
    """
    if loaded.frame != loaded.family.model_type:
        (folder / _OWN_FILE).write_text(json.dumps({"frame": loaded.frame}) + "\n", encoding="utf-8")
    adapter = folder / ADAPTER_CONFIG
    if loaded.name and adapter.is_file():
        facts = json.loads(adapter.read_text(encoding="utf-8"))
        facts["base_model_name_or_path"] = _lasting_base(loaded)
        adapter.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _lasting_base(loaded: Loaded) -> str:
    """The base of an adapter trained from `loaded`, as it holds from any working folder: a folder by its whole path."""
    recorded = _recorded_base(loaded.path)
    name, folder = (loaded.name, loaded.name) if recorded is None else (recorded, base_of(loaded.path))
    if name in packaged_names() or not Path(folder).expanduser().is_dir():
        return name
    return str(Path(folder).expanduser().resolve())


def saved_frame(path: str) -> str | None:
    """The frame saved beside a model, or beside the base of an adapter; None where the family's own applies.

    Raises ModelError for a file that does not name one.
    """
    for folder in dict.fromkeys((path, base_of(path))):
        file = Path(folder) / _OWN_FILE
        if not file.is_file():
            continue
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["frame"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelError(
                f"a model's {_OWN_FILE} names its frame, {file} does not ({first_line(error)}); "
                'write {"frame": "pixels"}, "thousand" or "unit" into it'
            ) from error
    return None
