"""What became of an evaluation's pictures, rows and model since: found again from any working folder, and compared."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opengrit.core.errors import DataError, ModelError, RunError
from opengrit.core.messages import first_few
from opengrit.core.types import Example, Record
from opengrit.data import load_examples
from opengrit.data.fingerprint import Fingerprint, RowPrint, compare, content_of, fingerprint
from opengrit.data.tables import TableSettings
from opengrit.models.identity import identity_of
from opengrit.models.resolve import packaged_names
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.runs.data_file import newest_data, tell_unknown
from opengrit.runs.folder import RunDir
from opengrit.runs.origin import DataOrigin, Origin, picture_paths, read_origin
from opengrit.runs.recipe_comparison import listed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Since:
    """An evaluation's records with their pictures where they lie now, and what is not as it was.

    `missing` pictures are named as the records name them, `exchanged` ones have another content than was asked about,
    `rows` says how the data files changed, one phrase each, and `rows_counted` how many rows of each kind, with no path.
    """

    records: tuple[Record, ...]
    num_pictures: int
    missing: tuple[str, ...]
    exchanged: tuple[str, ...]
    rows: tuple[str, ...]
    rows_counted: str


def since(
    run: RunDir,
    records: Sequence[Record],
    *,
    images: Path | None = None,
    limit: int | None = None,
) -> Since:
    """Records of a run, compared with the pictures and the data files of now.

    `images` is where pictures are looked for first, `limit` how many rows of each data set were asked. Every picture is
    read once. Where an earlier version wrote the run, that it cannot be compared is logged. Raises RunError where what the
    run noted cannot be read.
    """
    origin, noted = read_origin(run.path), newest_data(run.path)
    paths = [record.example.image for record in records]
    there = picture_paths(run.path, origin, paths, images=images)
    missing = [path for path in dict.fromkeys(paths) if path not in there]
    exchanged: list[str] = []
    rows: list[str] = []
    counted = ""
    if noted is None:
        tell_unknown(run.path)
    else:
        prints = {row.id: row for one in noted.values() for row in one.rows}
        exchanged = _exchanged(records, there, prints)
        if origin is not None:
            rows, counted = _rows_since(origin, noted, limit=limit)
    return Since(
        records=tuple(_with_picture(record, there) for record in records),
        num_pictures=len(set(paths)),
        missing=tuple(missing),
        exchanged=tuple(exchanged),
        rows=tuple(rows),
        rows_counted=counted,
    )


def with_pictures(run: RunDir, records: Sequence[Record], *, images: Path | None = None) -> list[Record]:
    """A run's records with their pictures where they lie now; how many cannot be found is logged."""
    paths = [record.example.image for record in records]
    there = picture_paths(run.path, read_origin(run.path), paths, images=images)
    missing = [path for path in dict.fromkeys(paths) if path not in there]
    if missing:
        _log.warning(
            "%d of %d pictures of %s cannot be found (%s); name their folder with --images",
            len(missing),
            len(set(paths)),
            run.path,
            first_few(missing),
        )
    return [_with_picture(record, there) for record in records]


def tell(run: RunDir, found: Since, *, consequence: str) -> None:
    """Log what is not as it was; `consequence` says what becomes of the answers about pictures that are missing."""
    if found.rows:
        _log.warning(
            "the data of %s changed since (%s); what follows is about the old data",
            run.path,
            listed(found.rows),
        )
    if found.missing:
        _log.warning("%s; %s", missing_pictures(run, found), consequence)


def missing_pictures(run: RunDir, found: Since) -> str:
    """How many pictures of a run cannot be found, and the first of them."""
    return f"{len(found.missing)} of {found.num_pictures} pictures of {run.path} cannot be found ({first_few(found.missing)})"


def in_words(found: Since) -> str:
    """What is not as it was, for a page that goes to others; "" where nothing is known to have changed."""
    words = [found.rows_counted] if found.rows_counted else []
    if found.exchanged:
        words.append(f"{len(found.exchanged)} pictures have changed")
    if found.missing:
        words.append(f"{len(found.missing)} of {found.num_pictures} pictures are missing")
    return listed(words)


def require_same_pictures(run: RunDir, found: Since) -> None:
    """Raise RunError where pictures have another content than was asked about, or all are missing."""
    if found.exchanged:
        raise RunError(
            f"probes need the evaluation's pictures, {len(found.exchanged)} of {run.path} have changed "
            f"({first_few(found.exchanged)}); restore the old ones, or evaluate again with another --out and probe that"
        )
    if found.missing and len(found.missing) == found.num_pictures:
        raise RunError(
            f"probes need the evaluation's pictures, none of {run.path} can be found ({first_few(found.missing)}); "
            "restore them, or name their folder with --images"
        )


def with_model(run: RunDir, recipe: EvalRecipe, *, model: str | None) -> EvalRecipe:
    """The run's recipe with its model by a name that holds in this working folder; `model` is where it is now.

    Raises ModelError where the model that answered cannot be found, or is another one; nothing is asked of the hub under a
    name that was a folder.
    """
    if recipe.endpoint is not None:
        if model is None:
            return recipe
        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": model})})
    origin = read_origin(run.path)
    then = None if origin is None else origin.model
    name = model or _model_name(run, recipe.model.name, origin)
    try:
        now = identity_of(name)
    except ModelError as error:
        where = "" if then is None else f", which was {then}"
        raise ModelError(
            f"the evaluation's model, in {run.path}{where}, must exist and does not ({error}); name its place with "
            "--model"
        ) from error
    if then is not None and then.is_another(now):
        raise ModelError(
            f"probes ask the evaluation's model again, in {run.path} it was {then}, and {name!r} is {now} now; name the "
            "old one with --model, or evaluate the new one with another --out"
        )
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": name})})


def _model_name(run: RunDir, name: str, origin: Origin | None) -> str:
    if origin is not None and origin.model is not None:
        return origin.model.path or name
    if name in packaged_names() or os.path.isabs(name):
        return name
    for start in run.path.resolve().parents:  # a run that noted nothing: the folders above it
        if (start / name).is_dir():
            return str(start / name)
    raise ModelError(
        f"the model that answered in {run.path} was {name!r}, without a note whether that is a folder or a hub id; name "
        "it with --model"
    )


def _with_picture(record: Record, there: dict[str, str]) -> Record:
    path = there.get(record.example.image, record.example.image)
    if path == record.example.image:
        return record
    return replace(record, example=replace(record.example, image=path))


def _exchanged(records: Sequence[Record], there: dict[str, str], prints: dict[str, RowPrint]) -> list[str]:
    known: dict[str, str] = {}
    found = []
    for record in records:
        path, row = there.get(record.example.image), prints.get(record.example.id)
        if path is None or row is None:
            continue
        if path not in known:
            known[path] = content_of(path) or ""
            if not known[path].startswith(row.picture):
                found.append(record.example.image)
    return found


def _rows_since(
    origin: Origin, noted: Mapping[str, Fingerprint], *, limit: int | None
) -> tuple[list[str], str]:
    """How the rows of the data files differ from those that were asked or learned from, in phrases and in numbers.

    Pictures of the same name are not read again.
    """
    phrases: list[str] = []
    counts: list[str] = []
    for name in dict.fromkeys(where.rows for where in origin.data if where.rows in noted):
        then = noted[name]
        try:
            examples = [
                example
                for where in origin.data
                if where.rows == name
                for example in _as_then(where, origin.working_folder)[:limit]
            ]
        except DataError as error:
            return [
                f"its data cannot be read now: {str(error).splitlines()[0]}"
            ], "its data cannot be read now"
        pictures = {row.image: row.picture for row in then.rows}

        def picture_of(image: str, known: Mapping[str, str] = pictures) -> str | None:
            return known.get(image) or content_of(os.path.join(origin.working_folder, image))

        changes = compare(then, fingerprint(examples, picture_of=picture_of))
        phrases += changes.phrases()
        counts += [changes.counted()] if changes else []
    return phrases, "; ".join(counts)


def _as_then(where: DataOrigin, working_folder: str) -> list[Example]:
    """The rows of a data set now, with their pictures' paths as they were written in the run's working folder."""
    table = None if where.table is None else TableSettings(**where.table)
    if where.path is None:
        return load_examples(where.spec, where.images, table=table)
    if where.images is not None:
        new, old = os.path.join(working_folder, where.images), where.images
    elif os.path.isdir(where.path):
        new, old = where.path, where.spec
    else:
        new, old = os.path.dirname(where.path), os.path.dirname(where.spec)
    examples = load_examples(where.path, None if where.images is None else new, table=table)
    return [
        replace(one, image=os.path.join(old, os.path.relpath(one.image, new)))
        if Path(one.image).is_relative_to(new)
        else one
        for one in examples
    ]
