"""How much of the attention goes to the picture while `grit`'s models rethink (the paper's figure 5), for docs/results.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from measured import ALL_SETS, POOLED
from opengrit.core.types import Record
from opengrit.evaluation.attention import (
    ATTENTION,
    AttentionScores,
    Reading,
    attention_scores,
    check_attention,
    unmeasured,
)
from opengrit.evaluation.metrics import Estimate
from opengrit.evaluation.probe_run import measure_run, open_probes
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.reports.runs import recipe_of
from opengrit.runs.folder import RunDir

QUESTIONS = 40  # of each data set and seed


def measure_seeds(table: Path, out: Path, *, so_far: bool) -> tuple[AttentionScores, list[Record]] | None:
    """The scores of `grit`'s evaluations in a table's folder, measured in folders of `out`; None where there is none.

    Seeds are pooled by question. With the answers of the first seed, whose questions are those of all. `so_far` measures
    nothing, and leaves out a seed that is not finished.
    """
    found, asked = [], list[Record]()
    for run in sorted(table.glob("runs/*/grit/seed-*/eval")):
        folder = out / run.parent.name
        read = RunDir.open(run)
        evaluated = recipe_of(read)["evaluate"]
        records = list(_first_of_each(read.records()))
        if so_far and unmeasured(records, check_attention(records, folder / ATTENTION)):
            continue
        kept = open_probes(read, folder, evaluated)
        asked = asked or records
        found += measure_run(EvalRecipe.model_validate(evaluated), records, kept, quiet=True)
    return (attention_scores(found), asked) if found else None


def _first_of_each(records: Iterator[Record]) -> Iterator[Record]:
    by_set: dict[str, list[Record]] = {}
    for record in records:
        by_set.setdefault(set_of(record), []).append(record)
    return itertools.chain.from_iterable(of_one[:QUESTIONS] for of_one in by_set.values())


def set_of(record: Record) -> str:
    """The name of the data set that a packaged row is of."""
    return record.example.id.rpartition(":")[0]


def attention_rows(model: str, scores: AttentionScores) -> Iterator[tuple[object, ...]]:
    """Lines of a table's CSV file, all sets together."""
    rows = {
        "attention/written": scores.share[Reading.WRITTEN],
        "attention/no-boxes": scores.share[Reading.NO_BOXES],
        "attention/without-boxes": scores.without_boxes,
        "attention/without-words": scores.without_words,
        "attention/boxes-over-words": scores.boxes_over_words,
        "attention/tokens": Estimate(scores.tokens, scores.num_read, None, None),
    }
    for quantity, value in rows.items():
        numbers = ("" if n is None else f"{n:.5g}" for n in (value.value, value.low, value.high))
        yield (model, ALL_SETS, "grit", POOLED, quantity, *numbers, value.n)
