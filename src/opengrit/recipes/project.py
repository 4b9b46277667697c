"""From a table and a folder of pictures to a folder that trains: rows in two parts, and a recipe that fits."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from opengrit.core.errors import DataError
from opengrit.core.types import Example
from opengrit.data.check import Source, check
from opengrit.data.importing import Imported, import_table, scratch_beside, write_rows
from opengrit.data.sources import require_readable
from opengrit.data.split import Split, split_by_picture
from opengrit.data.tables import TableSettings
from opengrit.recipes.choosing import Choice, Setting, written_recipe
from opengrit.recipes.training_recipe import Recipe, load_recipe


@dataclass(frozen=True, slots=True)
class Project:
    """A folder that was made, and the commands that come next."""

    imported: Imported
    split: Split
    recipe: Path
    notes: tuple[str, ...]
    commands: tuple[str, ...]


def make_project(
    source: str,
    out: Path,
    *,
    choice: Choice,
    images: Path | None = None,
    settings: TableSettings | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    max_steps: int | None = None,
    skip_bad_rows: bool = False,
) -> Project:
    """The new folder `out` with train.jsonl, test.jsonl, recipe.yaml and, of a source that holds pictures, pictures/.

    The rows are split by picture; a source whose own `split` says train and another keeps that. `max_steps` is that of the
    recipe where it is None. The folder is made whole or not at all.

    Raises:
        BadTable: rows cannot be used, and are not to be skipped.
        DataError: the source cannot be read, a picture does not open, there are too few, or `out` is there already.
    """
    if out.exists():
        raise DataError(f"nothing is overwritten, {out} exists; choose another --out, or move it away")
    with scratch_beside(out) as partial:
        folder = partial / "made"
        folder.mkdir()
        imported = import_table(
            source,
            images=images,
            settings=settings,
            pictures=folder / "pictures",
            skip_bad_rows=skip_bad_rows,
        )
        require_readable(imported.examples)
        split, notes = _split(imported.examples, test_share=test_share, seed=seed)
        pictures = imported.images
        for name, rows in (("train", split.train), ("test", split.test)):
            write_rows([replace(row, split=name) for row in rows], folder / f"{name}.jsonl", images=pictures)
        place = out / "pictures" if pictures.is_relative_to(folder) else pictures
        recipe = _recipe_text(choice, out, images=place, rows=len(split.train), max_steps=max_steps)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        loaded = load_recipe(folder / "recipe.yaml")
        notes += _findings(folder, pictures)
        os.chmod(folder, 0o777 & ~_umask())
        folder.rename(out)
    notes = (*notes, choice.note) if choice.note else notes
    return Project(imported, split, out / "recipe.yaml", notes, _commands(out, place, loaded))


def _split(examples: Sequence[Example], *, test_share: float, seed: int) -> tuple[Split, tuple[str, ...]]:
    names = {example.split for example in examples}
    if "train" in names and len(names - {"train", None}) == 1:
        train = tuple(example for example in examples if example.split in ("train", None))
        test = tuple(example for example in examples if example.split not in ("train", None))
        return Split(train, test), ("the rows' own split is kept",)
    return split_by_picture(examples, test_share=test_share, seed=seed), ()


def _recipe_text(choice: Choice, out: Path, *, images: Path, rows: int, max_steps: int | None) -> str:
    train = choice.recipe.train
    questions = min(train.questions_per_step, rows)
    completions = questions * train.num_generations
    at_once = max(size for size in range(1, train.per_device_train_batch_size + 1) if completions % size == 0)
    changed: dict[str, Setting] = {}
    if rows != train.questions_per_step:
        changed["train.questions_per_step"] = Setting(questions, f"of your {rows} rows")
    if questions != train.questions_per_step:
        passes = completions // at_once
        changed["train.per_device_train_batch_size"] = Setting(
            at_once, f"{completions} completions in {passes} passes" if passes > 1 else "all in one pass"
        )
    if max_steps not in (None, train.max_steps):
        changed["train.max_steps"] = Setting(max_steps)
    sources = {
        part: [{"file": (out / f"{name}.jsonl").as_posix(), "images": images.as_posix()}]
        for part, name in (("train", "train"), ("eval", "test"))
    }
    data = yaml.safe_dump({"data": sources}, sort_keys=False, allow_unicode=True)
    return written_recipe(choice, data=data, values=changed)


def _findings(folder: Path, pictures: Path) -> tuple[str, ...]:
    """What `opengrit data check` finds doubtful of the two files."""
    train, test = (Source(folder / f"{name}.jsonl", pictures) for name in ("train", "test"))
    found = check([train], [test])
    leaks = [leak for leak in found.leaks if leak.kind.name != "QUESTION"]
    if not leaks:
        return ()
    first = f"{leaks[0].test_id} and {leaks[0].train_id} have the {leaks[0].kind.value}"
    return (
        f"{len(leaks)} test rows share a picture with training rows ({first}): test figures would mislead",
    )


def _commands(out: Path, images: Path, recipe: Recipe) -> tuple[str, ...]:
    """Train, measure and report, as they are typed in the folder that paths start from."""
    trained, tested = out / "trained", out / "tested"
    words = (
        ["opengrit", "train", out / "recipe.yaml", "--out", trained],
        [
            "opengrit", "eval", "--model", trained, "--data", out / "test.jsonl", "--images", images,
            "--max-new-tokens", recipe.eval.max_completion_length, "--out", tested,
        ],
        ["opengrit", "report", trained, tested, "--out", out / "report.html"],
    )  # fmt: skip
    return tuple(shlex.join(map(str, line)) for line in words)


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
