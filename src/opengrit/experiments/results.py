"""A table's numbers: each way's quantities with seeds pooled and one by one, controls, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from opengrit.core.types import Example, Record
from opengrit.evaluation import metrics
from opengrit.evaluation.metrics import Estimate, McNemar, Pooled, Quantity
from opengrit.evaluation.metrics.estimates import key_of
from opengrit.evaluation.probes import Trial, necessity, sufficiency
from opengrit.experiments.recipe import TableRecipe
from opengrit.experiments.ways import AnyWay, Way
from opengrit.reports.tables import Unit
from opengrit.runs.alarms import Alarm
from opengrit.runs.folder import environment_facts
from opengrit.runs.recipe_comparison import recipe_hash

_One = TypeVar("_One")
REFERENCE = Way.GRIT  # what every other way is compared with


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity of the table. `always` shown, or only where it applies to some row or says something new.

    It is one of a record, or where it is `of_trials` of an answer and what became of it with boxes grey.
    """

    key: str
    name: str
    unit: Unit
    quantity: Callable[[Any], float | None]
    always: bool = True
    of_trials: bool = False


ACCURACY = Column("accuracy", "accuracy", Unit.SHARE, metrics.raw_score)
IOU = Column("grounding_iou", "union IoU", Unit.OVERLAP, metrics.grounding_iou)
F1 = Column("box_f1", "F1@0.5", Unit.OVERLAP, metrics.box_f1)
NECESSITY = Column("necessity", "necessity", Unit.SHARE, necessity, always=False, of_trials=True)
SUFFICIENCY = Column("sufficiency", "sufficiency", Unit.SHARE, sufficiency, always=False, of_trials=True)
COLUMNS = (
    ACCURACY,
    Column("right", "right or wrong", Unit.SHARE, metrics.right, always=False),
    Column("binarised", "accuracy, binarised", Unit.SHARE, metrics.binarised, always=False),
    IOU,
    Column(
        "random_boxes_iou", "IoU, own boxes at random places", Unit.OVERLAP, metrics.random_boxes_control()
    ),
    Column(
        "unscaled_iou", "IoU, released script's", Unit.OVERLAP, metrics.unscaled_grounding_iou, always=False
    ),
    F1,
    NECESSITY,
    SUFFICIENCY,
    Column("target_iou", "IoU of targets (recall)", Unit.OVERLAP, metrics.target_iou, always=False),
    Column("written_iou", "IoU of boxes (precision)", Unit.OVERLAP, metrics.written_iou, always=False),
    Column("detection_ap", "OVDEval AP", Unit.OVERLAP, metrics.detection_ap, always=False),
    Column("box_count_error", "box count error", Unit.NUMBER, metrics.box_count_error, always=False),
    Column("follows_format", "full format", Unit.SHARE, metrics.follows_format),
    Column("without_answer", "without answer", Unit.SHARE, metrics.without_answer),
    Column("unjudged", "unjudged", Unit.SHARE, metrics.unjudged),
    Column("truncated", "truncated", Unit.SHARE, metrics.truncated),
    Column("reply_tokens", "tokens of a reply", Unit.NUMBER, metrics.reply_tokens, always=False),
)
COMPARED = (ACCURACY, IOU)  # on every page
PAIRED = (*COMPARED, F1, NECESSITY, SUFFICIENCY)  # in the CSV file
_VISIBLE = 0.0005  # a difference that three decimals can show


@dataclass(frozen=True, slots=True)
class Training:
    """What the training of a run noted: its alarms, and the median seconds of a step (None before the second one)."""

    alarms: tuple[Alarm, ...]
    seconds_per_step: float | None


@dataclass(frozen=True, slots=True)
class ModelRecords:
    """What a model answered: by way, then by seed; and of some ways how they were probed and trained."""

    model: str
    ways: Mapping[AnyWay, Mapping[int, Sequence[Record]]]
    trials: Mapping[AnyWay, Mapping[int, Sequence[Trial]]] = field(default_factory=dict)
    trainings: Mapping[AnyWay, Mapping[int, Training]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Extra:
    """A quantity that only some data sets have: MME's accuracy+, F1 of yes and no."""

    key: str
    name: str
    unit: Unit
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class WayResult:
    """One way on one data set: each column's quantity over its seeds, in the order of `seeds`."""

    way: AnyWay
    seeds: tuple[int, ...]
    quantities: Mapping[str, Pooled]
    num_asked: int
    num_failed: int
    extras: tuple[Extra, ...] = ()
    trainings: Mapping[int, Training] = field(default_factory=dict)  # by seed


@dataclass(frozen=True, slots=True)
class Difference:
    """The reference minus another way, in one quantity, paired by example, seeds pooled on both sides.

    `tests` (accuracy alone, one answer a question) holds the reference's seeds, each against the other's run of the same
    seed, or against its only run.
    """

    other: AnyWay
    column: Column
    estimate: Estimate
    tests: tuple[tuple[int, McNemar], ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A model on a data set. The controls are scored on the rows all its ways were scored on, taken together."""

    model: str
    dataset: str
    num_examples: int
    ways: tuple[WayResult, ...]
    majority_answer: Estimate
    whole_picture_iou: Estimate
    differences: tuple[Difference, ...]
    above_controls: tuple[tuple[str, Column, Estimate], ...]  # control's name; the reference minus it, paired

    def way(self, way: AnyWay) -> WayResult | None:
        """The results of a way, None where it is not in the table."""
        return next((result for result in self.ways if result.way == way), None)


@dataclass(frozen=True, slots=True)
class TableResult:
    """A whole table and what its numbers were made with."""

    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def measure(
    recipe: TableRecipe, found: Sequence[ModelRecords], data: Mapping[str, Sequence[Example]]
) -> TableResult:
    """The table of some records. The same records give the same table, to the last digit."""
    blocks = tuple(
        _block(one.model, dataset, examples, _of_dataset(one, examples))
        for one in found
        for dataset, examples in data.items()
    )
    return TableResult(blocks, _columns(blocks), _facts(recipe, data), _notes(recipe))


@dataclass(frozen=True, slots=True)
class _OfWay:
    """What a way answered on one data set, by seed, and its trials where it was probed."""

    records: Mapping[int, Sequence[Record]]
    trials: Mapping[int, Sequence[Trial]]
    trainings: Mapping[int, Training]

    def of(self, column: Column) -> Mapping[int, Sequence[Any]]:
        """What the column's quantity is one of."""
        return self.trials if column.of_trials else self.records

    def all_of(self, column: Column) -> list[Any]:
        return _all(self.of(column))


_Answers = Mapping[AnyWay, _OfWay]


def _of_dataset(model: ModelRecords, examples: Sequence[Example]) -> _Answers:
    """What a model answered about some examples."""
    keys = {key_of(example) for example in examples}

    def about_them(by_seed: Mapping[int, Sequence[Any]]) -> dict[int, list[Any]]:
        return {
            seed: [one for one in found if key_of(one.example) in keys] for seed, found in by_seed.items()
        }

    return {
        way: _OfWay(about_them(by_seed), about_them(model.trials.get(way, {})), model.trainings.get(way, {}))
        for way, by_seed in model.ways.items()
    }


def _block(model: str, dataset: str, examples: Sequence[Example], ways: _Answers) -> Block:
    everything = [record for of_way in ways.values() for record in _all(of_way.records)]
    majority = metrics.majority_control(everything)
    return Block(
        model=model,
        dataset=dataset,
        num_examples=len(examples),
        ways=tuple(_way(way, of_way) for way, of_way in ways.items()),
        majority_answer=metrics.estimate(everything, majority),
        whole_picture_iou=metrics.estimate(everything, metrics.whole_picture_iou),
        differences=tuple(_differences(ways)),
        above_controls=_above_controls(ways, majority),
    )


def _way(way: AnyWay, of_way: _OfWay) -> WayResult:
    runs = list(of_way.records.values())
    records = _all(of_way.records)
    seeds = tuple(of_way.records)

    def pooled(column: Column) -> Pooled:
        by_seed = of_way.of(column)
        return metrics.pool_seeds([by_seed.get(seed, ()) for seed in seeds], column.quantity)

    return WayResult(
        way=way,
        seeds=seeds,
        quantities={column.key: pooled(column) for column in COLUMNS},
        num_asked=len(records),
        num_failed=sum(not metrics.is_measured(record) for record in records),
        extras=_extras(runs, records),
        trainings=of_way.trainings,
    )


def _extras(runs: Sequence[Sequence[Record]], records: Sequence[Record]) -> tuple[Extra, ...]:
    datasets = {record.example.dataset.lower() for record in records}
    found = []
    if datasets and all(name.startswith("mme") for name in datasets):
        for row in metrics.mme(*runs):
            name, key = f"accuracy+, {row.subtask}", f"accuracy_plus/{row.subtask}"
            found.append(Extra(key, name, Unit.SHARE, row.accuracy_plus))
    if datasets and all("pope" in name for name in datasets):
        asked = metrics.yes_no(records)
        found.append(Extra("yes_f1", "F1 of yes", Unit.SHARE, asked.f1))
        found.append(Extra("yes_share", "says yes", Unit.SHARE, asked.yes_share))
    return tuple(found)


# -- differences -----------------------------------------------------------------------------------------------------


def _differences(ways: _Answers) -> list[Difference]:
    if REFERENCE not in ways:
        return []
    ours = ways[REFERENCE]
    found = []
    for column in PAIRED:
        for way, theirs in ways.items():
            if way is REFERENCE:
                continue
            estimate = metrics.paired_difference(theirs.all_of(column), ours.all_of(column), column.quantity)
            tests = _tests(ours.records, theirs.records) if column is ACCURACY else ()
            found.append(Difference(way, column, estimate, tests))
    return found


def _tests(
    ours: Mapping[int, Sequence[Record]], theirs: Mapping[int, Sequence[Record]]
) -> tuple[tuple[int, McNemar], ...]:
    """McNemar's test for each of our seeds; none where a question has several answers, which are not independent."""
    if any(record.sample > 0 for records in (*ours.values(), *theirs.values()) for record in records):
        return ()
    only = next(iter(theirs.values())) if len(theirs) == 1 else None
    pairs = [(seed, theirs.get(seed, only), records) for seed, records in ours.items()]
    return tuple((seed, metrics.mcnemar(was, now)) for seed, was, now in pairs if was is not None)


def _above_controls(ways: _Answers, majority: Quantity) -> tuple[tuple[str, Column, Estimate], ...]:
    """How far the reference lies above what costs nothing, on its own records."""
    if REFERENCE not in ways:
        return ()
    records = _all(ways[REFERENCE].records)
    controls: tuple[tuple[str, Column, Quantity], ...] = (
        ("the most frequent answer", ACCURACY, majority),
        ("one box around the whole picture", IOU, metrics.whole_picture_iou),
        ("its own boxes at random places", IOU, metrics.random_boxes_control()),
    )
    return tuple(
        (name, column, metrics.estimate(records, _minus(column.quantity, control)))
        for name, column, control in controls
    )


def _minus(one: Quantity, other: Quantity) -> Callable[[Record], float | None]:
    def difference(record: Record) -> float | None:
        first, second = one(record), other(record)
        return None if first is None or second is None else first - second

    return difference


def _all(by_seed: Mapping[int, Sequence[_One]]) -> list[_One]:
    return [one for found in by_seed.values() for one in found]


# -- what goes with the numbers --------------------------------------------------------------------------------------


def _columns(blocks: Sequence[Block]) -> tuple[Column, ...]:
    """The columns that are shown: those that always are, and those that say something of their own."""

    def says_something(column: Column) -> bool:
        same_as = {"right": ACCURACY, "binarised": ACCURACY, "unscaled_iou": IOU}.get(column.key)
        for result in (result for block in blocks for result in block.ways):
            mine = result.quantities[column.key].pooled.value
            theirs = result.quantities[same_as.key].pooled.value if same_as else None
            if mine is not None and (theirs is None or abs(mine - theirs) > _VISIBLE):
                return True
        return False

    hidden = {"box_count_error", "reply_tokens"}  # in the CSV file
    return tuple(c for c in COLUMNS if c.always or (c.key not in hidden and says_something(c)))


def _facts(recipe: TableRecipe, data: Mapping[str, Sequence[Example]]) -> tuple[tuple[str, str], ...]:
    environment = environment_facts()
    versions = ("opengrit", "torch", "transformers", "trl", "peft")
    how = "greedy" if recipe.is_greedy else f"temperature {recipe.eval.temperature:g}"
    length = recipe.eval.max_completion_length
    facts = [
        ("data sets", ", ".join(f"{name} ({len(examples)} rows)" for name, examples in data.items())),
        ("models", ", ".join(model.title for model in recipe.models)),
        ("seeds", ", ".join(map(str, recipe.seeds))),
        ("answers", f"{recipe.eval.samples} to a question, {how}, at most {length} tokens"),
    ]
    if any(way.learns for way in recipe.all_ways):
        facts.append(("learned from", ", ".join(source.spec for source in recipe.train_data)))
    facts += [
        ("recipe", recipe_hash(recipe.resolved_yaml())[:12]),
        ("python", environment["python"]),
        ("platform", environment["platform"]),
        ("versions", ", ".join(f"{n} {v}" for n, v in environment["packages"].items() if n in versions)),
    ]
    return tuple(facts)


def _notes(recipe: TableRecipe) -> tuple[str, ...]:
    asked_once = [
        w.value for w in recipe.all_ways if len(recipe.seeds_of(w)) == 1 and not (w.learns or w.is_after_grit)
    ]
    notes = [
        "Each mean has its 95 % bootstrap interval over examples; the seeds of an example are averaged first. The "
        "interval shows what other examples would give; the spread of the seeds shows what other seeds would give.",
        "No correction for multiple comparisons: about one interval in twenty misses by chance.",
        "IoU compares the union of all written boxes with the union of the annotated ones. A reply without a box has "
        "IoU 0, and rows without annotated boxes are left out. direct asks for no boxes.",
        "Failed, unjudged and truncated replies are counted, and left out of the means they cannot inform.",
        "Full format: the five tags in order, an answer, and a box where the row has one. The prompts direct and sft "
        "do not ask for it.",
    ]
    if Way.SFT in recipe.ways:
        notes.append(
            "sft learns from the annotated boxes of its rows; the rewards of grpo-answer and grit never look at them."
        )
    if Way.DIRECT_AFTER in recipe.ways:
        notes.append(
            "direct-after is the model trained by grit, asked plainly: its difference from grit is the effect of "
            "writing boxes."
        )
    if recipe.probe:
        notes.append(
            "Necessity: the share of answers that change with their boxes grey, minus that with random boxes of the same sizes "
            "grey. Sufficiency: the share that stays with all but their boxes grey. Answers without boxes are left out."
        )
    if Way.BLIND in recipe.ways:
        notes.append(
            "blind is the model trained by grit, asked in the same way about grey pictures: what it answers without "
            "looking, a baseline for every accuracy."
        )
    if asked_once and len(recipe.seeds) > 1 and recipe.is_greedy:
        notes.insert(
            1,
            f"{', '.join(asked_once)}: no training and greedy answers, so there is one run; another seed would give the "
            "same.",
        )
    return tuple(notes)
