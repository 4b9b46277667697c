"""Runs that differ by their seed only, pooled: the mean over all, each seed by itself, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opengrit.evaluation.metrics import grounding_iou, pool_seeds, raw_score
from opengrit.reports.plots import Dot
from opengrit.reports.runs import RunView
from opengrit.reports.tables import DASH, OVERLAP_NAME, Cell, Unit, value_cell, written

# What may differ between two seeds of one thing. A trained model lies in a folder of its own; where it was trained is
# known, "trained by" identifies its recipe, and its name adds nothing.
_OF_ONE_SEED = frozenset({"seed", "training seed", "recipe", "answers"})
TRAINED_BY, TRAINING_SEED = "trained by", "training seed"
_POOLED = (("Accuracy", Unit.SHARE, raw_score), (OVERLAP_NAME, Unit.OVERLAP, grounding_iou))


@dataclass(frozen=True, slots=True)
class PooledCell:
    """A quantity over the seeds: pooled with its interval, each seed's value, their standard deviation as written."""

    pooled: Cell
    seeds: tuple[str, ...]
    spread: str


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Runs that differ by seed only; `cells` are those of accuracy and of box IoU."""

    name: str
    runs: tuple[str, ...]
    cells: tuple[PooledCell, ...]


def seed_groups(runs: Sequence[RunView]) -> tuple[SeedGroup, ...]:
    """The groups of two and more evaluation runs whose facts are the same but for their seeds."""
    groups: dict[tuple[tuple[str, str], ...], list[RunView]] = {}
    for run in runs:
        if run.is_evaluation and run.facts:
            groups.setdefault(_same_for_all_seeds(run), []).append(run)
    return tuple(_group(members) for members in groups.values() if _is_group(members))


def seed_dots(runs: Sequence[RunView]) -> tuple[Dot, ...]:
    """A dot for each evaluation run that has accuracy and box IoU; the runs of one group share a series."""
    series: dict[str, int] = {}
    for number, group in enumerate(seed_groups(runs)):
        series |= dict.fromkeys(group.runs, number)
    dots = []
    for run in runs:
        if run.name not in series:
            continue
        values = [pool_seeds([run.records], quantity).seeds[0].value for _, _, quantity in _POOLED]
        if values[0] is not None and values[1] is not None:
            dots.append(Dot(run.name, x=values[0], y=values[1], series=series[run.name]))
    return tuple(dots)


def _same_for_all_seeds(run: RunView) -> tuple[tuple[str, str], ...]:
    trained = any(name == TRAINED_BY for name, _ in run.facts)
    left_out = _OF_ONE_SEED | ({"model"} if trained else set())
    return tuple((name, value) for name, value in run.facts if name not in left_out)


def _seeds(run: RunView) -> tuple[str, ...]:
    return tuple(value for name, value in run.facts if name in ("seed", TRAINING_SEED))


def _is_group(members: Sequence[RunView]) -> bool:
    """Two runs of one seed are a repetition, and no group of seeds."""
    return len({_seeds(run) for run in members}) == len(members) > 1


def _group(members: Sequence[RunView]) -> SeedGroup:
    cells = []
    for _, unit, quantity in _POOLED:
        found = pool_seeds([run.records for run in members], quantity)
        values = tuple(DASH if e.value is None else written(e.value, unit) for e in found.seeds)
        spread = DASH if found.spread is None else written(found.spread, unit)
        cells.append(PooledCell(value_cell(found.pooled, unit, "not measured"), values, spread))
    names = tuple(run.name for run in members)
    return SeedGroup(f"{members[0].name} and {len(names) - 1} more", names, tuple(cells))
