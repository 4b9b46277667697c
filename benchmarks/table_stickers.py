"""The paper's Table 1 in miniature, and what more training rows bring: six ways of asking or training, measured.

    python benchmarks/table_stickers.py --out runs/table

makes, with `opengrit table`, 18 trainings (two models x sft, grpo-answer, grit x three seeds) and 24 evaluations, then
for the scaling plot 12 more trainings (two models x grit on 100 and 500 rows x three seeds), and writes its section of
docs/results.md and docs/scaling.svg. It can be broken off at any time: the same command goes on where it stopped, and
asks no question twice. `--dry-run` says what there is to do and does nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import SceneQuestion, ask_count, ask_open, ask_yes_no
from opengrit.data.stickers.world import SEEN_STYLES, draw, seeded
from opengrit.evaluation.metrics import Estimate
from opengrit.experiments import TableRecipe, Way, load_table_recipe, run_table
from opengrit.experiments.pages import heading, lines, tests_text
from opengrit.experiments.results import ACCURACY, COMPARED, Block, Column, TableResult
from opengrit.experiments.sentences import ascii_minus, findings
from opengrit.recipes.data_section import Source
from opengrit.reports.plots import Series, line_plot
from pages import replace_section

RECIPE = Path("table-stickers")
ROWS = (100, 500)  # beside the twenty of the table itself
SCALED_ON = ("stickers/count", "stickers/spatial")
BLOCK = 20  # rows after which GRIT's mix repeats: ten that count, five yes/no and five open ones about places


# -- more training rows ----------------------------------------------------------------------------------------------


def more_rows(count: int) -> list[SceneQuestion]:
    """`count` questions in GRIT's mix: those of stickers/train20, then new ones about scenes of no packaged set.

    Fewer are the beginning of more. The scenes depend on nothing but their number.
    """
    taken = {asked.scene.fingerprint() for name in sets.SET_NAMES for asked in sets.asked(name)}
    made = list(sets.asked("train20"))[:count]
    attempt = 0
    while len(made) < count:
        new = _new_row(len(made) % BLOCK, attempt)
        attempt += 1
        if new.scene.fingerprint() not in taken:
            taken.add(new.scene.fingerprint())
            made.append(new)
    return made


def _new_row(place: int, attempt: int) -> SceneQuestion:
    rng = seeded(sets.VERSION, "scaling", attempt)
    if place < 10:
        return ask_count(rng, place // 2, SEEN_STYLES)
    return ask_open(rng, SEEN_STYLES) if place % 2 else ask_yes_no(rng, place % 4 == 0, SEEN_STYLES)


def write_rows(count: int, folder: Path) -> Path:
    """The rows as GRIT JSONL beside their pictures; written once, whole."""
    path = folder / f"train{count}.jsonl"
    if path.exists():
        return path
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = []
    for number, asked in enumerate(more_rows(count)):
        image = f"train-{number:05d}.png"  # fewer rows are the beginning of more: the pictures are shared
        if not (images / image).exists():
            staged = images / f".{image}"
            staged.write_bytes(sets.png_bytes(draw(asked.scene)))
            staged.replace(images / image)
        size = asked.scene.size
        row = {
            "question": asked.question,
            "answer": int(asked.answer) if asked.answer.isdigit() else asked.answer,
            "image": image,
            "width": size.width,
            "height": size.height,
            "bboxs": [[o.left, o.top, o.right, o.bottom] for o in asked.pointed],
            "dataset": sets.dataset_of(f"train{count}", asked),
            "split": "train",
            "key_words": list(asked.key_words),
        }
        written.append(json.dumps(row))
    staged = path.with_name(f".{path.name}")
    staged.write_text("".join(line + "\n" for line in written), encoding="utf-8")
    staged.replace(path)
    return path


# -- running ---------------------------------------------------------------------------------------------------------


def scaled(recipe: TableRecipe, count: int, folder: Path) -> TableRecipe:
    """The table of `grit` alone, learned from `count` rows in as many steps as the main table's."""
    train = recipe.train.model_dump(exclude={"seed"})
    values = recipe.model_dump(exclude={"train", "sft"}) | {
        "ways": (Way.GRIT,),
        "data": tuple(source for source in recipe.data if source.spec in SCALED_ON),
        "train_data": (Source(file=str(write_rows(count, folder)), images=str(folder / "images")),),
        "train": train,
    }
    return TableRecipe.model_validate(values)


def num_trainings(recipe: TableRecipe) -> int:
    """How many trainings a table makes."""
    return sum(run.way.learns for model in recipe.models for run in recipe.runs(model))


@dataclass(frozen=True, slots=True)
class Found:
    """The main table, and `grit` by the number of rows it learned from."""

    table: TableResult
    scaling: dict[int, TableResult]


def run_all(recipe: TableRecipe, out: Path, rows: Sequence[int]) -> Found:
    """Everything, or what is missing of it."""
    table = run_table(recipe, out / "table")
    scaling = {count: run_table(scaled(recipe, count, out / "rows"), out / f"rows-{count}") for count in rows}
    return Found(table, scaling)


# -- writing ---------------------------------------------------------------------------------------------------------


def show(found: Estimate, column: Column) -> str:
    """A value with its interval, or a dash."""
    if found.value is None:
        return "-"
    scale, digits = (100.0, 1) if column.unit is ACCURACY.unit else (1.0, 3)
    text = f"{found.value * scale:.{digits}f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"


def grit(block: Block, column: Column) -> Estimate | None:
    """The pooled value of `grit` on a block."""
    result = block.way(Way.GRIT)
    return None if result is None else result.quantities[column.key].pooled


def block_of(table: TableResult, model: str, dataset: str) -> Block | None:
    """A model on a data set."""
    return next((b for b in table.blocks if (b.model, b.dataset) == (model, dataset)), None)


def scaling_points(found: Found, model: str, dataset: str) -> list[tuple[int, Block]]:
    """The blocks of a model on a data set by the number of rows `grit` learned from, 20 first."""
    tables = {BLOCK: found.table, **found.scaling}
    blocks = [(rows, block_of(table, model, dataset)) for rows, table in tables.items()]
    return [(rows, block) for rows, block in blocks if block is not None]


def scaling_svg(found: Found) -> str:
    """Accuracy and IoU of each model over the number of training rows, a line a data set."""
    figures = []
    for model in dict.fromkeys(block.model for block in found.table.blocks):
        for column in COMPARED:
            series = [
                Series(dataset, tuple(points))
                for dataset in SCALED_ON
                if (points := _points(found, model, dataset, column))
            ]
            plot = line_plot(
                series,
                title=f"{model}, {column.name}",
                x_label="training rows (as many steps each)",
                y_label=column.name,
            )
            figures.append(str(plot))
    return svg_of(figures)


def _points(found: Found, model: str, dataset: str, column: Column) -> list[tuple[float, float | None]]:
    blocks = scaling_points(found, model, dataset)
    return [(float(rows), value.value if (value := grit(b, column)) else None) for rows, b in blocks]


def svg_of(figures: Sequence[str]) -> str:
    """The drawings of some figures, two in a row, as one SVG file."""
    width, height, gap = 460, 262, 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {(height + gap) * math.ceil(len(figures) / 2)}" '
        f'font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        "<style>text{fill:#444}.grid{stroke:#ddd}.base{stroke:#888}.line{fill:none;stroke-width:2.4}"
        ".raw{fill:none;stroke-width:1.2;stroke-opacity:.32}</style>",
    ]
    for place, figure in enumerate(figures):
        title = figure.partition("<figcaption>")[2].partition("</figcaption>")[0]
        inner = figure.partition("<svg ")[2].partition(">")[2].partition("</svg>")[0]
        left, top = place % 2 * width, place // 2 * (height + gap)
        parts.append(f'<text x="{left + 8}" y="{top + 20}" font-weight="600">{title}</text>')
        parts.append(f'<g transform="translate({left} {top + 34})">{inner}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def section(found: Found, svg_name: str) -> str:
    """The Markdown section."""
    table = found.table
    parts = ["## Table 1 in miniature", "", "In words, written by the script from the numbers:", ""]
    parts += [f"* {text}" for text in findings(table)]
    for block in table.blocks:
        parts += ["", f"### {block.model}, {block.dataset}", "", f"n = {block.num_examples} questions.", ""]
        parts += [
            "| | " + " | ".join(heading(c) for c in table.columns) + " |",
            "|---" * (len(table.columns) + 1) + "|",
        ]
        for line in lines(block, table.columns):
            cells = [
                ""
                if not cell.text
                else "-"
                if cell.why
                else ascii_minus(f"{cell.text.removesuffix(' %')} [{cell.interval.replace(' to ', ', ')}]")
                for cell in line.cells
            ]
            parts.append(f"| {line.name} | {' | '.join(cells)} |")
        tests = [f"{d.other}: {tests_text(d)}" for d in block.differences if d.tests]
        if tests:
            parts += ["", f"McNemar's test of accuracy, grit against {'. '.join(tests)}."]
    parts += ["", *scaling_section(found, svg_name)]
    parts += ["", "How to read it:", "", *(f"* {note}" for note in table.notes), "", context(table)]
    return "\n".join(parts) + "\n"


def scaling_section(found: Found, svg_name: str) -> list[str]:
    """The table beside the plot, with the difference that the most rows make to the fewest."""
    if not found.scaling:
        return []
    parts = [
        "### More training rows",
        "",
        "`grit` with as many steps on more rows; each row is then seen less often. The rows are in GRIT's mix, the twenty of "
        "the table among them, and their scenes are in no evaluation set.",
        "",
        f"![Accuracy and union IoU over the number of training rows]({svg_name})",
        "",
        "| | "
        + " | ".join(f"{rows} rows, {c.name}" for c in COMPARED for rows in (BLOCK, *found.scaling))
        + " |",
        "|---" * (len(COMPARED) * (1 + len(found.scaling)) + 1) + "|",
    ]
    for model in dict.fromkeys(block.model for block in found.table.blocks):
        for dataset in SCALED_ON:
            points = scaling_points(found, model, dataset)
            cells = [
                show(value, column) if (value := grit(block, column)) else "-"
                for column in COMPARED
                for _, block in points
            ]
            if cells:
                parts.append(f"| {model}, {dataset} | {' | '.join(cells)} |")
    parts += ["", *(f"* {text}" for text in scaling_words(found))]
    return parts


def scaling_words(found: Found) -> list[str]:
    """Whether the most rows give more than the fewest, by whether their intervals lie apart."""
    said = []
    for model in dict.fromkeys(block.model for block in found.table.blocks):
        for dataset in SCALED_ON:
            points = scaling_points(found, model, dataset)
            for column in COMPARED:
                if len(points) < 2:
                    continue
                (few, first), (many, last) = points[0], points[-1]
                was, now = grit(first, column), grit(last, column)
                if was is None or now is None or was.low is None or now.low is None:
                    continue
                if now.low > (was.high or 0.0):
                    verdict = "more than"
                elif (now.high or 0.0) < was.low:
                    verdict = "less than"
                else:
                    verdict = "not told apart (the intervals overlap) from"
                said.append(
                    f"{model} on {dataset}, {column.name}: {show(now, column)} after {many} rows is {verdict} "
                    f"{show(was, column)} after {few}."
                )
    return said


def context(table: TableResult) -> str:
    """What the numbers were made with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    facts = "; ".join(f"{name}: {value}" for name, value in table.facts)
    return f"Recipe `{RECIPE}`, written at commit {commit.stdout.strip()}, {platform.machine()} CPU, 32 bits. {facts}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--rows", type=int, nargs="*", default=list(ROWS), help="training rows beside the twenty"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, and stop")
    args = parser.parse_args()
    recipe = load_table_recipe(RECIPE, [*args.overrides, f"seeds={args.seeds}"])
    main_runs = num_trainings(recipe)
    more = len(recipe.models) * len(recipe.seeds) * len(args.rows) if Way.GRIT in recipe.ways else 0
    print(f"{main_runs} trainings for the table, {more} more for the scaling plot", flush=True)
    if args.dry_run:
        return
    found = run_all(recipe, args.out, args.rows if more else [])
    svg = args.results.parent / "scaling.svg"
    if found.scaling:
        svg.write_text(scaling_svg(found), encoding="utf-8")
    text = section(found, svg.name)
    replace_section(args.results, "table stickers", text)
    print(text)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("opengrit").setLevel(logging.INFO)
    main()
