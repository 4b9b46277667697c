"""The files of your own that a run used: their text is kept in `own_code/`, their hashes in origin.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opengrit.core.numbered_files import all_of, next_free
from opengrit.core.plugins import OWN_CODE, OwnFile
from opengrit.runs.folder import write_atomically
from opengrit.runs.origin import CodeOrigin, read_origin

_HASH_SHOWN = 12


def keep_own_code(folder: Path, files: Sequence[OwnFile]) -> tuple[CodeOrigin, ...]:
    """What the files are, for the run's origin, with a copy of each in the run's folder; a changed one gets a new name there."""
    found = []
    for file in files:
        place = folder / OWN_CODE / file.kept_name
        place.parent.mkdir(exist_ok=True)
        kept = next((one for one in all_of(place) if one.is_file() and _text(one) == file.text), None)
        if kept is None:
            kept = next_free(place)
            write_atomically(kept, file.text)
        found.append(CodeOrigin(file.kept_name, f"{OWN_CODE}/{kept.name}", file.sha256))
    return tuple(found)


def own_code_changes(folder: Path, files: Sequence[OwnFile]) -> list[str]:
    """How the files differ from those that a run last used, one phrase each; none where an earlier version wrote the run."""
    origin = read_origin(folder)
    if origin is None:
        return []
    then = {code.name: code.sha256 for code in origin.own_code}
    now = {file.kept_name: file.sha256 for file in files}
    return [
        f"{name}: {_shown(then, name)} then, {_shown(now, name)} now"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


def _shown(hashes: dict[str, str], name: str) -> str:
    return f"SHA-256 {hashes[name][:_HASH_SHOWN]}" if name in hashes else "not there"


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as stream:
        return stream.read()
