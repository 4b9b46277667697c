"""Before-and-after tables: each quantity with n and interval for each run, and how far later runs differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Record
from opengrit.evaluation import metrics
from opengrit.evaluation.metrics import DatasetSummary, Estimate, Measurements, Quantity
from opengrit.grounding.prompts import Strategy

DASH = "-"
MINUS = "\u2212"


class Unit(Enum):
    """How a quantity is written: a share as per cent, an overlap with three decimals, a number with two."""

    SHARE = "%"
    OVERLAP = "IoU"
    NUMBER = "number"

    @property
    def after_value(self) -> str:
        """What follows a value."""
        return " %" if self is Unit.SHARE else ""

    @property
    def after_difference(self) -> str:
        """What follows a difference: those of shares are in points (hundredths)."""
        return " points" if self is Unit.SHARE else ""


class Better(Enum):
    """Which direction is the good one."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    NEITHER = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the table. `quantity` is None for a control, which is the same for every model."""

    field: str  # of DatasetSummary
    name: str
    unit: Unit
    better: Better
    quantity: Quantity | None
    why_none: str  # what it means when it applies to no record
    optional: bool = False  # the line is left out where no run has a value
    of_pointing: bool = False  # says nothing of a run that was asked plainly and points nowhere


_SHARE, _OVERLAP, _NUMBER = Unit.SHARE, Unit.OVERLAP, Unit.NUMBER
_HIGHER, _LOWER, _NEITHER = Better.HIGHER, Better.LOWER, Better.NEITHER
_UNJUDGED = "no answer was judged"
_NO_BOXES = "no row has annotated boxes"
_NO_MATCH = "no row's boxes can be matched one to one"
_NO_TREEBENCH = "no row is TreeBench's"
_NO_DETECTION = "no row asks for a box"
_NO_COUNT = "no row counts anything"
_NO_RECORDS = "no rollout came through"
ASKED_PLAINLY = "asked plainly"
_STRAY = 0.1  # up to this share of answers with boxes, a run that was not asked for any does not point
OVERLAP_NAME = "Overlap with the annotation (IoU)"
MEASURES = (
    Measure("accuracy", "Accuracy", _SHARE, _HIGHER, metrics.raw_score, _UNJUDGED),
    Measure("right", "Accuracy, right or wrong", _SHARE, _HIGHER, metrics.right, _UNJUDGED),
    Measure("majority_answer", "control: most frequent answer", _SHARE, _NEITHER, None, _UNJUDGED),
    Measure(
        "binarised",
        "Accuracy, any score above 0",
        _SHARE,
        _HIGHER,
        metrics.binarised,
        _UNJUDGED,
        optional=True,
    ),
    Measure(
        "grounding_iou",
        OVERLAP_NAME,
        _OVERLAP,
        _HIGHER,
        metrics.grounding_iou,
        _NO_BOXES,
        of_pointing=True,
    ),
    Measure("whole_picture_iou", "control: whole picture", _OVERLAP, _NEITHER, None, _NO_BOXES),
    Measure(
        "random_boxes_iou",
        "control: random places",
        _OVERLAP,
        _NEITHER,
        None,
        _NO_BOXES,
        optional=True,
        of_pointing=True,
    ),
    Measure(
        "unscaled_iou",
        "Overlap, released script (IoU)",
        _OVERLAP,
        _HIGHER,
        metrics.unscaled_grounding_iou,
        _NO_BOXES,
        optional=True,
        of_pointing=True,
    ),
    Measure(
        "box_f1",
        "Box F1 at IoU 0.5",
        _SHARE,
        _HIGHER,
        metrics.box_f1,
        _NO_MATCH,
        optional=True,
        of_pointing=True,
    ),
    Measure(
        "target_iou",
        "IoU of each target with the best box (recall)",
        _OVERLAP,
        _HIGHER,
        metrics.target_iou,
        _NO_TREEBENCH,
        optional=True,
        of_pointing=True,
    ),
    Measure(
        "written_iou",
        "IoU of each box with the best target (precision)",
        _OVERLAP,
        _HIGHER,
        metrics.written_iou,
        _NO_TREEBENCH,
        optional=True,
        of_pointing=True,
    ),
    Measure(
        "detection_ap",
        "Detection AP, 0.50 to 0.95",
        _OVERLAP,
        _HIGHER,
        metrics.detection_ap,
        _NO_DETECTION,
        optional=True,
    ),
    Measure(
        "follows_format",
        "Full format",
        _SHARE,
        _HIGHER,
        metrics.follows_format,
        _NO_RECORDS,
        of_pointing=True,
    ),
    Measure("boxes_per_answer", "Boxes per answer", _NUMBER, _NEITHER, metrics.num_boxes, _NO_RECORDS),
    Measure(
        "count_error",
        "Count error, boxes",
        _NUMBER,
        _LOWER,
        metrics.count_error,
        _NO_COUNT,
        of_pointing=True,
    ),
    Measure("without_answer", "Without an answer", _SHARE, _LOWER, metrics.without_answer, _NO_RECORDS),
    Measure("unjudged", "Unjudged", _SHARE, _LOWER, metrics.unjudged, _NO_RECORDS),
    Measure("truncated", "Truncated", _SHARE, _LOWER, metrics.truncated, _NO_RECORDS),
)
HEADLINES = ("accuracy", "grounding_iou", "follows_format")
CONTROLS = {
    "accuracy": ("majority_answer",),
    "grounding_iou": ("whole_picture_iou", "random_boxes_iou"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured value as written; `why` instead of it where there is none."""

    text: str
    interval: str = ""
    n: int | None = None
    why: str = ""
    clear: bool = False  # a difference whose interval does not hold 0
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table of probes: what is measured, its value, and what it means."""

    name: str
    cell: Cell
    meaning: str


@dataclass(frozen=True, slots=True)
class Row:
    """A measure: a cell a run, and a cell with the paired difference for each of the table's pairs of runs."""

    measure: Measure
    cells: tuple[Cell, ...]
    differences: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A data set ("all" for all together) measured in every run. `failed` is "failed of asked" a run.

    `pairs` are the runs that are compared, each an earlier one's place and a later one's.
    """

    dataset: str
    rows: tuple[Row, ...]
    failed: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()

    def row(self, field: str) -> Row | None:
        """The line of a measure, None where it is left out."""
        return next((row for row in self.rows if row.measure.field == field), None)


def compare(runs: Mapping[str, Sequence[Record] | Measurements]) -> tuple[Table, ...]:
    """A table of all records where there are several data sets, then one for each, in alphabetical order.

    Differences are between the first run and each later one, and between the last run and those amid, on the examples
    both measured. Handed measurements, it asks nothing again that another part of the page has asked.
    """
    if not runs:
        return ()
    whole = list(metrics.measured(runs).values())
    parts = [one.parts(lambda example: example.dataset) for one in whole]
    by_dataset = [metrics.summarise_by(one, lambda example: example.dataset) for one in whole]
    names = sorted({name for found in parts for name in found})
    plain = [is_plain(one.records) for one in whole]
    tables = []
    if len(names) != 1:  # of one data set "all" would be the same again
        overall = [metrics.summarise_by(one, lambda _: "all") for one in whole]
        tables.append(_table("all", [_named(found, "all") for found in overall], whole, plain))
    for name in names:
        rows = [found[name] if name in found else Measurements(()) for found in parts]
        tables.append(_table(name, [_named(found, name) for found in by_dataset], rows, plain))
    return tuple(tables)


def pairs_of(num_runs: int) -> tuple[tuple[int, int], ...]:
    """The places of the runs that are compared: the first with each later one, then those amid with the last."""
    last = num_runs - 1
    return (*((0, later) for later in range(1, num_runs)), *((amid, last) for amid in range(1, last)))


def _named(found: Mapping[str, DatasetSummary], name: str) -> DatasetSummary:
    return found[name] if name in found else metrics.summarise(()).overall


def _table(
    name: str,
    summaries: Sequence[DatasetSummary],
    runs: Sequence[Measurements],
    plain: Sequence[bool],
) -> Table:
    rows, pairs = [], pairs_of(len(runs))
    for measure in MEASURES:
        found = [getattr(summary, measure.field) for summary in summaries]
        if measure.field in ("right", "binarised") and found == [s.accuracy for s in summaries]:
            continue  # a judge that says yes or no: the line would appear twice
        if measure.optional and not any(estimate.n for estimate in found):
            continue
        silent = [measure.of_pointing and one for one in plain]
        cells = tuple(
            Cell(DASH, why=ASKED_PLAINLY)
            if is_silent
            else value_cell(
                getattr(summary, measure.field),
                measure.unit,
                measure.why_none if summary.num_records else "not asked in this run",
            )
            for summary, is_silent in zip(summaries, silent, strict=True)
        )
        differences = tuple(
            Cell(DASH, why=ASKED_PLAINLY)
            if silent[earlier] or silent[later]
            else _difference(measure, runs[earlier], runs[later])
            for earlier, later in pairs
        )
        rows.append(Row(measure, cells, differences))
    failed = tuple(f"{summary.num_failed} of {summary.num_records}" for summary in summaries)
    return Table(name, tuple(rows), failed, pairs)


def is_plain(records: Sequence[Record]) -> bool:
    """Whether a run's questions were put without a word of boxes, and at most one answer in ten has one anyway.

    A stray box says nothing of pointing; a model that mostly answers with boxes without being asked to is measured by them.
    """
    pointing = sum(bool(record.transcript.boxes) for record in records)
    asked_plainly = all(record.strategy == Strategy.DIRECT for record in records)
    return bool(records) and asked_plainly and pointing <= _STRAY * len(records)


def _difference(measure: Measure, first: Measurements, later: Measurements) -> Cell:
    if measure.quantity is None:
        return Cell(DASH, why="a control")
    found = first.difference(later, measure.quantity)
    return difference_cell(found, measure.unit, "no example is measured in both runs")


def value_cell(found: Estimate, unit: Unit, why_none: str) -> Cell:
    """An estimate as written, or a dash and the reason."""
    if found.value is None:
        return Cell(DASH, why=why_none)
    return Cell(
        written(found.value, unit) + unit.after_value,
        interval=_interval(found, unit, written),
        n=found.n,
        estimate=found,
    )


def difference_cell(found: Estimate, unit: Unit, why_none: str) -> Cell:
    """A difference as written, with its sign; shares in points (hundredths)."""
    if found.value is None:
        return Cell(DASH, why=why_none)
    return Cell(
        signed(found.value, unit),
        interval=_interval(found, unit, signed),
        n=found.n,
        clear=found.clear_of_zero,
        estimate=found,
    )


def written(value: float, unit: Unit) -> str:
    """A value in its unit, without the unit's sign."""
    if unit is Unit.SHARE:
        return f"{value * 100:.1f}"
    return f"{value:.3f}" if unit is Unit.OVERLAP else f"{value:.2f}"


def signed(value: float, unit: Unit) -> str:
    """A value in its unit with a plus or a minus before it; what rounds to nothing has neither."""
    text = written(abs(value), unit)
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else MINUS) + text


def _interval(found: Estimate, unit: Unit, write: Callable[[float, Unit], str]) -> str:
    if found.low is None or found.high is None:
        return "no interval from one example"
    return f"{write(found.low, unit)} to {write(found.high, unit)}"
