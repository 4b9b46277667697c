"""A training run's metrics as plots: reward, its parts, format, length, groups without variance, evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from opengrit.reports.plots import Series, line_plot

Rows = Sequence[Mapping[str, Any]]
MAX_LINES = 6  # of one plot; more are hard to tell apart

_RATES = {"accuracy": "accuracy", "format": "full format", "grounding_iou": "overlap (IoU)"}
_LENGTH = {"completions/mean_length": "mean length"}
_FLAT = {"frac_reward_zero_std": "share"}
_LOST = {"truncated": "truncated", "unjudged": "unjudged", "failed": "failed"}
_SECONDS = {
    f"seconds/{part}": part for part in ("prepare", "draw", "judge", "reference", "loss", "evaluate", "write")
}
_EVALUATED = {"accuracy": "Accuracy", "grounding_iou": "Overlap (IoU)", "format": "Full format"}


def curves(rows: Rows) -> tuple[Markup, ...]:
    """The figures of a run. Of a step written twice, after a resume, the last row counts.

    Names are those of `metrics.jsonl`: `parts/NAME`, `parts/DATASET/NAME`, `eval/DATASET/NAME`.
    """
    rows = _by_step(rows)
    figures = [_plot(rows, {"reward": "total"}, title="Reward, total", y_label="reward")]
    figures += _part_plots(rows, "parts/", "Reward parts")
    figures += [
        _plot(rows, _RATES, title="Accuracy, format and boxes of the rollouts", y_label="mean"),
        _plot(rows, _LENGTH, title="Length of a completion", y_label="tokens"),
        _plot(rows, _FLAT, title="Groups without variance (they teach nothing)", y_label="share"),
        _plot(rows, _LOST, title="Rollouts lost or cut short", y_label="share"),
    ]
    timed = {key: part for key, part in _SECONDS.items() if key in _keys(rows, "seconds/")}
    if timed:  # runs of earlier versions have none
        figures.append(_plot(rows, timed, title="Where the time went", y_label="seconds"))
    datasets = sorted({k.removeprefix("parts/").rpartition("/")[0] for k in _keys(rows, "parts/")} - {""})
    if len(datasets) > 1:
        for dataset in datasets:
            figures += _part_plots(rows, f"parts/{dataset}/", f"Reward parts, {dataset}")
    return tuple(figures + _evaluation_plots(rows))


def _part_plots(rows: Rows, prefix: str, title: str) -> list[Markup]:
    keys = [key for key in _keys(rows, prefix) if "/" not in key.removeprefix(prefix)]
    plots = []
    for start in range(0, len(keys), MAX_LINES):
        labels = {key: key.removeprefix(prefix).replace("_", " ") for key in keys[start : start + MAX_LINES]}
        number = f" ({start // MAX_LINES + 1})" if len(keys) > MAX_LINES else ""
        plots.append(_plot(rows, labels, title=title + number, y_label="mean"))
    return plots


def _evaluation_plots(rows: Rows) -> list[Markup]:
    """What was measured on each evaluation set while training; none where nothing was."""
    datasets = sorted({key.removeprefix("eval/").rpartition("/")[0] for key in _keys(rows, "eval/")})
    sizes = {d: next((r[f"eval/{d}/n"] for r in rows if f"eval/{d}/n" in r), None) for d in datasets}
    plots = []
    for start in range(0, len(datasets), MAX_LINES):
        group = datasets[start : start + MAX_LINES]
        for quantity, name in _EVALUATED.items():
            series = [_evaluated(rows, dataset, quantity, sizes[dataset]) for dataset in group]
            if any(s.points for s in series):
                title = f"{name} on evaluation questions"
                plots.append(line_plot(series, title=title, x_label="step", y_label="mean"))
    return plots


def _evaluated(rows: Rows, dataset: str, quantity: str, size: Any) -> Series:
    found = _series(rows, f"eval/{dataset}/{quantity}", dataset)
    name = dataset if size is None else f"{dataset}, n = {size:.0f}"
    return replace(found, name=name, label=dataset.rpartition("/")[2])


def _plot(rows: Rows, labels: Mapping[str, str], *, title: str, y_label: str) -> Markup:
    series = [_series(rows, key, label) for key, label in labels.items()]
    return line_plot(series, title=title, x_label="step", y_label=y_label)


def _series(rows: Rows, key: str, name: str) -> Series:
    """The values of a key: a row that has the key without a number is a gap, one without the key is left out."""
    values = [(float(row["step"]), row[key]) for row in rows if key in row]
    return Series(name, tuple((s, float(v) if isinstance(v, int | float) else None) for s, v in values))


def _by_step(rows: Rows) -> list[dict[str, Any]]:
    merged: dict[float, dict[str, Any]] = {}
    for row in rows:
        if isinstance(row.get("step"), int | float):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _keys(rows: Rows, prefix: str) -> list[str]:
    return sorted({key for row in rows for key in row if key.startswith(prefix)})
