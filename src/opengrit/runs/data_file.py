"""The data of a run in its folder: each row and picture in hashes, and what changed when the run is continued."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from opengrit.core.errors import RunError
from opengrit.core.numbered_files import all_of, next_free
from opengrit.data.fingerprint import DataChanges, Digests, Fingerprint, RowPrint, compare, of_rows
from opengrit.runs.folder import write_atomically

DATA = "data.jsonl"
_FORMAT = 1
_log = logging.getLogger(__name__)

Data = Mapping[str, Fingerprint]  # the sets of rows that a run uses, by what they are for


def write_data(folder: Path, now: Data) -> None:
    """Write what the data of a run is, under the next free name; nothing where the newest file says the same."""
    known = _newest(folder)
    if known is None or _heads(known) != {name: one.digests for name, one in now.items()}:
        write_atomically(next_free(folder / DATA), "".join(_lines(now)))


def changes_since(folder: Path, now: Data) -> dict[str, DataChanges] | None:
    """What changed in each set of rows since the run in a folder was last continued; None where an earlier version
    wrote the run and nothing says what its data was. Sets that one of the two lacks are left out.

    The rows are read only where a hash of all of them says that something changed.
    """
    known = _newest(folder)
    if known is None:
        return None
    heads = _heads(known)
    both = [name for name in now if name in heads]
    if all(heads[name] == now[name].digests for name in both):
        return {}
    then = read_data(known)
    found = {name: compare(then[name], now[name]) for name in both}
    return {name: changes for name, changes in found.items() if changes}


def noted_hashes(folder: Path) -> list[dict[str, str]]:
    """The hash of each set of rows as each session of the run had them, the newest last; what a checkpoint says.

    The names of pictures are not in it.
    """
    files = all_of(folder / DATA) if (folder / DATA).is_file() else []
    return [{name: _hash(digests) for name, digests in _heads(path).items()} for path in files]


def hashes(data: Data) -> dict[str, str]:
    """The hash of each set of rows, as a checkpoint says it."""
    return {name: _hash(one.digests) for name, one in data.items()}


def _hash(digests: Digests) -> str:
    return hashlib.sha256(f"{digests.asked} {digests.annotation}".encode()).hexdigest()


def newest_data(folder: Path) -> dict[str, Fingerprint] | None:
    """The data of a run as its last session had it; None where an earlier version wrote the run."""
    known = _newest(folder)
    return None if known is None else read_data(known)


def tell_unknown(folder: Path) -> None:
    """Say that nothing says what the data of a run was."""
    _log.warning(
        "%s was written by a version that did not note its data (it has no %s): changes since then cannot be checked",
        folder,
        DATA,
    )


def tell_renamed(changes: Mapping[str, DataChanges]) -> None:
    """Say which pictures have another name and the same content."""
    for name, found in changes.items():
        for phrase in found.renamed.phrases():
            _log.warning("data %s: %s", name, phrase)


def important(changes: Mapping[str, DataChanges]) -> list[str]:
    """What changed, a phrase each with the name of its set, but for pictures of another name and the same content."""
    return [f"data {name}: {phrase}" for name, found in changes.items() for phrase in found.important.phrases()]  # fmt: skip


# -- the file --------------------------------------------------------------------------------------------------------
#
# The first line says what the sets are, so that their hashes are read without the rows. Then come the pictures of a set, a
# line each, and its rows, which name a picture by its number.


def _lines(data: Data) -> Iterator[str]:
    heads, bodies = [], []
    for name, one in data.items():
        images = {row.image: row.picture for row in one.rows}
        root = _root(images)
        number_of = {image: number for number, image in enumerate(images)}
        heads.append(
            {"set": name, "rows": len(one.rows), "pictures": len(images), "root": root, **asdict(one.digests)}
        )
        bodies.append((root, images, number_of, one.rows))
    columns = {
        "picture": ["name below root", "start of the SHA-256 of its content"],
        "row": ["id", "question", "picture's number", "answer", "boxes", "labels"],
    }
    yield _line({"format": _FORMAT, "columns": columns, "sets": heads})
    for root, images, number_of, rows in bodies:
        yield from (_line([image[len(root) :], picture]) for image, picture in images.items())
        for row in rows:
            yield _line(
                [row.id, row.question, number_of[row.image], row.answer, row.boxes, row.labels],
            )


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _root(images: Iterable[str]) -> str:
    """The folder, with its slash, that all the paths start with; "" where they share none."""
    folders = {image.rpartition("/")[0] for image in images}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # none, or absolute and relative ones
        return ""
    return f"{common}/" if all(image.startswith(f"{common}/") for image in images) else ""


def _newest(folder: Path) -> Path | None:
    return all_of(folder / DATA)[-1] if (folder / DATA).is_file() else None


def _heads(path: Path) -> dict[str, Digests]:
    with path.open(encoding="utf-8") as stream:
        line = stream.readline()
    try:
        return {
            head["set"]: Digests(head["asked"], head["annotation"], head["images"])
            for head in json.loads(line)["sets"]
        }
    except (ValueError, LookupError, TypeError) as error:
        raise _broken(path, error) from error


def read_data(path: Path) -> dict[str, Fingerprint]:
    """The sets of rows in a file that `write_data` wrote. Raises RunError where it holds something else."""
    found = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for head in json.loads(stream.readline())["sets"]:
                pictures = [json.loads(stream.readline()) for _ in range(head["pictures"])]
                rows = []
                for _ in range(head["rows"]):
                    name, question, number, answer, boxes, labels = json.loads(stream.readline())
                    image, picture = pictures[number]
                    rows.append(
                        RowPrint(name, question, picture, head["root"] + image, answer, boxes, labels)
                    )
                found[head["set"]] = of_rows(rows)
    except (ValueError, LookupError, TypeError) as error:
        raise _broken(path, error) from error
    return found


def _broken(path: Path, error: Exception) -> RunError:
    return RunError(
        f"a run's {DATA} holds what opengrit wrote, {path} does not ({error}); move it away to continue the run without "
        "comparing its data"
    )
