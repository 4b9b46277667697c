"""What the runs of a table came to, read from their folders: answers, trials of their boxes, and how they were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from opengrit.core.types import Record
from opengrit.evaluation.probe_run import ask_probes, open_probes
from opengrit.evaluation.probes import Trial, trials, unasked
from opengrit.experiments.recipe import TableRecipe, TableRun
from opengrit.experiments.results import ModelRecords, Training
from opengrit.experiments.ways import AnyWay
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.runs.alarms import alarms_of
from opengrit.runs.folder import RECIPE, RunDir

TRAINING, EVALUATION, PROBES = "train", "eval", "probe"  # a run's folders


@dataclass(frozen=True, slots=True)
class Made:
    """What a run came to: its answers, their trials where it was probed, and its training where it has one of its own."""

    records: list[Record]
    trials: tuple[Trial, ...]
    training: Training | None


def by_model(recipe: TableRecipe, made: Mapping[TableRun, Made]) -> list[ModelRecords]:
    """What the runs came to, by model, way and seed, in the order in which the recipe's ways are shown."""
    order = list(recipe.all_ways)
    made = dict(sorted(made.items(), key=lambda item: order.index(item[0].way)))
    found = []
    for title in dict.fromkeys(run.model.title for run in made):
        records: dict[AnyWay, dict[int, list[Record]]] = {}
        tried: dict[AnyWay, dict[int, tuple[Trial, ...]]] = {}
        trained: dict[AnyWay, dict[int, Training]] = {}
        for run, one in made.items():
            if run.model.title != title:
                continue
            records.setdefault(run.way, {})[run.seed] = one.records
            if one.trials:
                tried.setdefault(run.way, {})[run.seed] = one.trials
            if one.training is not None:
                trained.setdefault(run.way, {})[run.seed] = one.training
        found.append(ModelRecords(title, records, tried, trained))
    return found


def made_by(here: Path, records: list[Record]) -> Made:
    """What the run in a folder came to; these are its answers. Trials are those of a finished run of probes."""
    return Made(records, _finished_trials(here / PROBES, records), _training(here / TRAINING))


def probe(here: Path, recipe: EvalRecipe, records: Sequence[Record], *, quiet: bool) -> None:
    """Probes the answers of a run's evaluation, or what is missing of that."""
    evaluated = yaml.safe_load(recipe.resolved_yaml())["evaluate"]
    run = open_probes(RunDir.open(here / EVALUATION), here / PROBES, evaluated)
    ask_probes(recipe, records, run, quiet=quiet)


def _finished_trials(folder: Path, records: Sequence[Record]) -> tuple[Trial, ...]:
    if not (folder / RECIPE).is_file():
        return ()
    done = {record.id: record for record in RunDir.open(folder).records()}
    return () if unasked(records, done) else trials(done.values())[0]


def _training(folder: Path) -> Training | None:
    if not (folder / RECIPE).is_file():
        return None
    run = RunDir.open(folder)
    steps = [
        sum(value for name, value in row.items() if name.startswith("seconds/")) for row in run.metrics()
    ]
    later = [seconds for seconds in steps[1:] if seconds]  # the first step warms up
    return Training(tuple(alarms_of(run.alarms())), median(later) if later else None)
