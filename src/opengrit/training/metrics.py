"""What a row of metrics.jsonl says of a step (summed where TRL takes means of means), and where the row goes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opengrit.core.types import Record, Rejection, Unjudged
from opengrit.evaluation.measured import measured, to_json
from opengrit.evaluation.metrics import (
    Quantity,
    count_error,
    covered_area,
    follows_format,
    grounding_iou,
    num_boxes,
    right,
    truncated,
    unjudged,
)
from opengrit.evaluation.probes import probe_scores, trials
from opengrit.evaluation.rollout import case_of
from opengrit.runs.alarms import (
    AlarmMonitor,
    Setting,
    alarm_row,
    alarms_of,
    resumed_row,
    rows_of,
    zero_loss_is_normal,
)
from opengrit.runs.folder import RunDir
from opengrit.training.progress_table import ProgressTable
from opengrit.training.trackers import Trackers

_log = logging.getLogger(__name__)
_QUANTITIES: dict[str, Quantity] = {
    "accuracy": right,
    "format": follows_format,
    "grounding_iou": grounding_iou,
    "boxes": num_boxes,
    "covered_area": covered_area,
    "count_error": count_error,
    "truncated": truncated,
    "unjudged": unjudged,
}
# TRL averages these over passes and steps, though passes differ in their numbers of tokens and rows.
_BY_TOKEN = ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
_BY_ROW = frozenset(
    {"reward", "rewards/rubric_total/mean", "completions/clipped_ratio", "frac_reward_zero_std"}
    | {f"completions/{which}_length" for which in ("mean", "min", "max")}
    | {f"completions/{which}_terminated_length" for which in ("mean", "min", "max")}
)


@dataclass(slots=True)
class MetricSums:
    """Weighted sums, minima and maxima by name. A NaN is not measured and is left out."""

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)  # of weight x value, and of weights
    minima: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float, *, weight: float = 1.0) -> None:
        """Add to the mean of that name."""
        if not math.isnan(value):
            self._add_sums(name, weight * value, weight)

    def add_min(self, name: str, value: float) -> None:
        """Add to the minimum of that name."""
        if not math.isnan(value):
            self.minima[name] = min(value, self.minima.get(name, value))

    def add_max(self, name: str, value: float) -> None:
        """Add to the maximum of that name."""
        if not math.isnan(value):
            self.maxima[name] = max(value, self.maxima.get(name, value))

    def values(self) -> dict[str, float]:
        """Each name's mean, minimum or maximum; a name whose weights sum to 0 has none."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count}
        return means | self.minima | self.maxima

    def _add_sums(self, name: str, total: float, count: float) -> None:
        before = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (before[0] + total, before[1] + count)


def merged(parts: Iterable[MetricSums]) -> MetricSums:
    """The sums, minima and maxima over all parts."""
    whole = MetricSums()
    for part in parts:
        for name, (total, count) in part.sums.items():
            whole._add_sums(name, total, count)
        for name, value in part.minima.items():
            whole.add_min(name, value)
        for name, value in part.maxima.items():
            whole.add_max(name, value)
    return whole


def add_lengths(sums: MetricSums, records: Sequence[Record], lengths: Sequence[int]) -> None:
    """Add the lengths of this process's completions; "terminated" ones are those that were not cut off."""
    for record, length in zip(records, lengths, strict=True):
        if record.failure is not None:
            continue
        cut_off = bool(truncated(record))
        sums.add("completions/clipped_ratio", float(cut_off))
        for kind in ("length",) if cut_off else ("length", "terminated_length"):
            sums.add(f"completions/mean_{kind}", length)
            sums.add_min(f"completions/min_{kind}", length)
            sums.add_max(f"completions/max_{kind}", length)


def add_scores(sums: MetricSums, records: Sequence[Record], totals: Sequence[float]) -> None:
    """Add what this process's rows are worth; a total may be NaN."""
    for record in records:
        if case_of(record) is not None:  # a judge was asked
            sums.add("judge/unjudged", float(isinstance(record.verdict, Unjudged)))
    for record in records:
        for name, value in _measures(record).items():
            sums.add(name, value)
    for total in totals:
        sums.add("reward", total)
        sums.add("rewards/rubric_total/mean", total)


def add_pass(sums: MetricSums, logged: dict[str, list[float]], *, tokens: int) -> None:
    """Move what TRL logged in a pass: means over the tokens of all processes, of which `tokens` are on this one."""
    for name in _BY_TOKEN:
        if logged.get(name):
            sums.add(name, logged[name].pop(), weight=tokens)
    if logged.get("clip_ratio/low_min"):
        sums.add_min("clip_ratio/low_min", logged["clip_ratio/low_min"].pop())
        sums.add_max("clip_ratio/high_max", logged["clip_ratio/high_max"].pop())


def put_sums(logged: dict[str, list[float]], sums: MetricSums) -> None:
    """Replace what TRL is about to log by the sums of all processes; a value that no row has is NaN, logged as null."""
    logged |= {name: [math.nan] for name in _BY_ROW & logged.keys()}
    logged |= {name: [value] for name, value in sums.values().items()}


def evaluation_row(
    name: str, records: Sequence[Record], probed: Sequence[Record] | None = None
) -> dict[str, float]:
    """The means over the records of an in-training evaluation, as "eval/<name>/<quantity>"; with its probes their two scores."""
    row: dict[str, float] = {f"eval/{name}/n": float(len(records))}
    for quantity_name, quantity in _QUANTITIES.items():
        values = [v for v in map(quantity, records) if v is not None]
        if values:
            row[f"eval/{name}/{quantity_name}"] = sum(values) / len(values)
    if probed is not None:
        scores = probe_scores(probed)
        found = {"necessity": scores.necessity.value, "sufficiency": scores.sufficiency.value}
        row |= {f"eval/{name}/{score}": value for score, value in found.items() if value is not None}
        row[f"eval/{name}/probed"] = float(scores.num_probed)
    return row


def _answers(
    records: Sequence[Record], probed: Sequence[Record] | None
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Of each answer, by its record's id: right, IoU, and the mean of its necessity and sufficiency; None: not measured."""
    found, _ = trials(probed or ())
    points = {trial.asked.id.partition("/")[2]: trial.faithfulness for trial in found}
    needed = {name: value / 2 for name, value in points.items() if value is not None}
    return {record.id: (right(record), grounding_iou(record), needed.get(record.id)) for record in records}


def _measures(record: Record) -> dict[str, float]:
    """What a record adds to the metrics of its step, by name; what does not apply to it is left out."""
    found = {name: quantity(record) for name, quantity in _QUANTITIES.items()}
    found["failed"] = float(record.failure is not None)
    rejected = record.transcript.rejected
    found["rejected_boxes"] = float(len(rejected)) if found["boxes"] is not None else None
    in_another_unit = sum(one.reason is Rejection.ANOTHER_UNIT for one in rejected)
    found["boxes_in_another_unit"] = float(in_another_unit) if found["boxes"] is not None else None
    for part, value in record.score.parts.items():
        found[f"parts/{part}"] = value
        found[f"parts/{record.example.dataset}/{part}"] = value
    return {name: value for name, value in found.items() if value is not None}


class StepLog:
    """Takes the rows and records of a training, on its first process. Without a run nothing is written."""

    def __init__(
        self,
        run: RunDir | None,
        *,
        setting: Setting,
        progress: ProgressTable | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self._run, self._setting, self._progress = run, setting, progress
        self.trackers = trackers or Trackers()
        self.monitor = AlarmMonitor(setting)
        self._zero_loss_explained = False

    def resume(self, step: int) -> None:
        """Let the alarm monitor recall the metrics up to that step, and mark alarms of later steps, which repeat."""
        if self._run is None:
            return
        rows = rows_of(self._run.metrics(), self._run.evaluations())
        self.monitor.recall(row for row in rows if row["step"] <= step)
        if any(alarm.step > step for alarm in alarms_of(self._run.alarms())):
            with self._run.append_alarms() as writer:
                writer.write_metrics(resumed_row(step))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write and show a step's row, and log and write the alarms it raises."""
        self.write(row)
        normal = None if self._zero_loss_explained else zero_loss_is_normal(row, self._setting)
        if normal is not None:
            _log.info(normal)
            self._zero_loss_explained = True
        for alarm in self.monitor.take(row):
            _log.warning("alarm at step %d, %s: %s", alarm.step, alarm.kind.value, alarm.text)
            if self._run is not None:
                with self._run.append_alarms() as writer:
                    writer.write_metrics(alarm_row(alarm))
            if self._progress is not None:
                self._progress.warn(alarm)
        if self._progress is not None:
            self._progress.show(row)

    def add_records(self, records: Sequence[Record], step: int) -> None:
        """Append a step's records to records.jsonl, and show some in the trackers where that is due."""
        if self._run is not None:
            with self._run.append_records() as writer:
                for record in records:
                    writer.write_record(record)
        self.trackers.take_rollouts(records, step)

    def add_evaluation(
        self, name: str, records: Sequence[Record], *, step: int, probed: Sequence[Record] | None = None
    ) -> dict[str, float]:
        """The means of an evaluation, by name. Writes them to metrics.jsonl, and with intervals and controls to evaluations.jsonl."""
        row = evaluation_row(name, records, probed)
        self.write({"step": step, **row})
        line = {"step": step, **to_json(measured(records, data=name)), "answers": _answers(records, probed)}
        self.monitor.take(line)
        if self._run is not None:
            with self._run.append_evaluations() as writer:
                writer.write_metrics(line)
        return row

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        if self._run is not None:
            with self._run.append_metrics() as writer:
                writer.write_metrics(row)
