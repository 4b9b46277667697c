"""The evidence behind docs/results.md: makes its tables, collects their figures in docs/results/ and composes the page.

    python benchmarks/results.py --out runs/evidence

makes six tables with `opengrit table`, each model in a folder of its own, measures the attention of what the table in
miniature trained, and can be interrupted: the same command continues. `--table` and `--model` name a part, so that two processes can share the work. `--so-far` runs nothing, and collects
what is finished by now, also while other processes work. The page is composed of every file that is there and was measured
with the packaged weights and rows of now; what is missing is named on it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from attention_rows import attention_rows, measure_seeds, set_of
from measured import ALL_SETS, MADE_WITH, rows_hash
from more_rows import write_rows
from opengrit.core.errors import OpenGritError, RunError
from opengrit.core.types import Example
from opengrit.experiments import TableRecipe, finished_runs, load_table_recipe, run_table
from opengrit.experiments.pages import CSV_HEADER, csv_text
from opengrit.experiments.results import Block, measure
from opengrit.models.resolve import packaged_names
from opengrit.runs.folder import ENVIRONMENT, RECIPE, RECORDS
from opengrit.runs.origin import read_origin
from opengrit.runs.recipe_comparison import recipe_hash
from results_page import compose

PAGE, README = Path("docs/results.md"), Path("README.md")
# What the page and its readers need of a table's CSV file, which has more; the rest is in the table's own folder.
KEPT = (
    "accuracy", "grounding_iou", "random_boxes_iou", "box_f1", "necessity", "sufficiency", "follows_format",
    "without_answer", "unjudged", "truncated", "reply_tokens", "failed", "alarms",
    "mcnemar_p", "majority_answer", "whole_picture_iou",
)  # fmt: skip
DIGITS = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """A table of the page: a recipe of `opengrit table`, and what is changed in it."""

    name: str
    recipe: str
    changes: tuple[str, ...] = ()


ATTENTION = "attention"  # of what the table in miniature trained
STICKERS = Evidence("stickers", "table-stickers")
TABLES = (
    Evidence("compose", "table-compose"),
    STICKERS,
    Evidence("drift", "table-drift"),
    Evidence("drift-200", "table-drift", ("train.learning_rate=1e-4", "train.max_steps=200")),
    Evidence("count-ablation", "table-count-ablation"),
    Evidence(
        "more-rows",
        "table-stickers",
        ("ways=[grit]", "data=[stickers/count, stickers/spatial]", "probe=false"),
    ),
)


def recipe_of(table: Evidence, model: str, folder: Path, changes: Sequence[str]) -> TableRecipe:
    """The recipe of a table for one model."""
    own = [*table.changes, f"models=[{model}]"]
    if table.name == "more-rows":
        rows = {count: write_rows(count, folder.parent / "rows") for count in (100, 500)}
        named = [
            f"rows-{n}: {{train_data: [{{file: {p}, images: {p.parent / 'images'}}}]}}"
            for n, p in rows.items()
        ]
        own.append(f"objectives={{{', '.join(named)}}}")
    return load_table_recipe(Path(table.recipe), [*own, *changes])


def collect(table: Evidence, recipe: TableRecipe, folder: Path) -> str | None:
    """The CSV text of the finished runs in a table's folder; None where there is none.

    Raises RunError where its models began with different weights.
    """
    if not (folder / RECIPE).is_file():
        return None
    found, data = finished_runs(recipe, folder)
    if not found:
        return None
    sets = dict(data)
    if len(data) > 1:
        sets[ALL_SETS] = [example for examples in data.values() for example in examples]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(_head(recipe, folder, data))
    whole = measure(recipe, found, sets)
    writer.writerows(_short(csv_text(whole)))
    writer.writerows(_seconds(whole.blocks[-1]))
    return stream.getvalue()


def collect_attention(recipe: TableRecipe, table: Path, folder: Path, *, so_far: bool) -> str | None:
    """The CSV text of the attention of a table's `grit`; None where nothing is trained or measured."""
    found = measure_seeds(table, folder, so_far=so_far) if (table / RECIPE).is_file() else None
    if found is None:
        return None
    scores, asked = found
    data: dict[str, list[Example]] = {}
    for record in asked:
        data.setdefault(set_of(record), []).append(record.example)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(_head(recipe, table, data))
    writer.writerows(attention_rows(recipe.models[0].title, scores))
    return stream.getvalue()


def _head(
    recipe: TableRecipe, folder: Path, data: Mapping[str, Sequence[Example]]
) -> Iterator[tuple[object, ...]]:
    model = recipe.models[0].title
    for key, value in _made_with(recipe, folder, sum(map(len, data.values()))):
        yield (model, "", MADE_WITH, "", key, value, "", "", "")
    for name, rows in data.items():
        yield (model, name, MADE_WITH, "", "rows_sha256", rows_hash(rows), "", "", len(rows))


def _made_with(recipe: TableRecipe, folder: Path, num_questions: int) -> Iterator[tuple[str, str]]:
    """What tells these figures from others: weights, versions, recipe and date."""
    origins = [read_origin(path.parent) for path in folder.glob("runs/*/*/*/*/origin.json")]
    # A trained model is asked from the folder it lies in: what it began with is in its training's origin.
    bases = {o.model.sha256 for o in origins if o and o.model and o.model.name in packaged_names()}
    if len(bases) != 1:
        raise RunError(
            f"the figures of a file are of one base, {folder} holds {len(bases)}; move it away, and make the table again"
        )
    yield "base_sha256", str(bases.pop())
    environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    yield "platform", environment["platform"]
    for package in ("opengrit", "torch", "transformers", "trl"):
        yield package, environment["packages"].get(package, "")
    yield "recipe", recipe_hash(recipe.resolved_yaml())[:12]
    yield "steps", str(recipe.train.max_steps)
    yield "learning_rate", f"{recipe.train.learning_rate:g}"
    yield "questions", str(num_questions)
    newest = max(path.stat().st_mtime for path in folder.glob(f"runs/*/*/*/*/{RECORDS}"))
    yield "date", datetime.fromtimestamp(newest, UTC).date().isoformat()


def _seconds(block: Block) -> Iterator[tuple[object, ...]]:
    """The seconds of a training's step, which are no part of a table: they depend on the machine, and on what else it does."""
    for way in block.ways:
        for seed, training in way.trainings.items():
            if training.seconds_per_step is not None:
                seconds = f"{training.seconds_per_step:.{DIGITS}g}"
                yield (
                    block.model,
                    block.dataset,
                    way.way,
                    seed,
                    "train_seconds_per_step",
                    seconds,
                    "",
                    "",
                    1,
                )


def _short(text: str) -> Iterator[list[str]]:
    """The rows of a table's CSV file that are kept, without the digits that say nothing."""
    for row in csv.DictReader(io.StringIO(text)):
        if row["quantity"] not in KEPT and not row["quantity"].startswith("alarm/"):
            continue
        if row["value"]:
            numbers = {
                name: f"{float(row[name]):.{DIGITS}g}" for name in ("value", "low", "high") if row[name]
            }
            yield [numbers.get(name, row[name]) for name in CSV_HEADER]


def main(arguments: Sequence[str] | None = None) -> None:
    names = [*(table.name for table in TABLES), ATTENTION]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--table", choices=names, nargs="+", default=names)
    parser.add_argument(
        "--model", nargs="+", default=list(packaged_names()), help="packaged models (default: both)"
    )
    parser.add_argument("--so-far", action="store_true", help="run nothing; collect what is finished")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="for a rehearsal"
    )
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="the page; its files lie beside it, in a folder of its name"
    )
    parser.add_argument("--readme", type=Path, default=README)
    args = parser.parse_args(arguments)
    raw = args.page.with_suffix("")
    raw.mkdir(parents=True, exist_ok=True)
    for table in (table for table in TABLES if table.name in args.table):
        for model in args.model:
            folder = args.out.resolve() / table.name / model
            recipe = recipe_of(table, model, folder, args.changes)
            if not args.so_far:
                run_table(recipe, folder, quiet=True)
            text = collect(table, recipe, folder)
            if text is not None:
                (raw / f"{table.name}-{model}.csv").write_text(text, encoding="utf-8")
            compose(args.page, args.readme)
    for model in args.model if ATTENTION in args.table else ():
        trained = args.out.resolve() / "stickers" / model
        recipe = recipe_of(STICKERS, model, trained, args.changes)
        text = collect_attention(recipe, trained, args.out.resolve() / ATTENTION / model, so_far=args.so_far)
        if text is not None:
            (raw / f"{ATTENTION}-{model}.csv").write_text(text, encoding="utf-8")
        compose(args.page, args.readme)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("opengrit").setLevel(logging.INFO)
    try:
        main()
    except OpenGritError as error:
        raise SystemExit(f"error: {error}") from error
