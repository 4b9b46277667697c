"""Alarms: each kind earned, not earned, raised once, and none in a run that goes well."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from opengrit.recipes.training_recipe import load_recipe
from opengrit.reports import build_report, load_runs
from opengrit.runs.alarms import (
    WINDOW,
    Alarm,
    AlarmMonitor,
    Kind,
    Setting,
    alarm_row,
    alarms,
    alarms_of,
    resumed_row,
    rows_of,
    zero_loss_is_normal,
)
from opengrit.runs.folder import RunDir
from opengrit.training.callbacks import GritCallback
from opengrit.training.metrics import StepLog
from opengrit.training.progress_table import ProgressTable
from opengrit.training.run import train
from opengrit.training.step_times import StepTimes

SETTING = Setting(max_completion_length=160, frame="qwen2_5_vl")
# A row as the demo writes it in its tenth step, rounded.
HEALTHY = {
    "loss": 0.0,
    "grad_norm": 0.4,
    "reward": 2.4,
    "reward_std": 0.6,
    "frac_reward_zero_std": 0.1,
    "entropy": 0.6,
    "clip_ratio/region_mean": 0.0,
    "completions/mean_length": 36.0,
    "accuracy": 0.7,
    "boxes": 2.0,
    "rejected_boxes": 0.0,
    "grounding_iou": 0.5,
    "format": 0.97,
    "truncated": 0.0,
    "failed": 0.0,
    "judge/unjudged": 0.0,
    "judge/skipped_step": 0.0,
}


def rows(count: int, *, first: int = 1, **changed: object) -> list[dict[str, object]]:
    """Rows of consecutive steps; a changed key stands with `_` for `/`."""
    named = {key.replace("__", "/"): value for key, value in changed.items()}
    return [{"step": first + i, **HEALTHY, **named} for i in range(count)]


def kinds(found: list[Alarm]) -> list[Kind]:
    return [alarm.kind for alarm in found]


# What is wrong in the last five rows, after ten in which all was well; the kind, and a word of cause or remedy.
EARNED = [
    (Kind.FLAT_GROUPS, {"frac_reward_zero_std": 1.0}, "train.temperature"),
    (Kind.FLAT_GROUPS, {"frac_reward_zero_std": 0.9, "accuracy": 0.99, "format": 1.0}, "nothing left to learn"),
    (Kind.REWARD_FELL, {"reward": 1.1}, "from 2.40 (step 5) to 1.10"),
    (Kind.FORMAT_FELL, {"format": 0.3}, "from 97% (step 5) to 43%"),
    (Kind.FORMAT_FELL, {"format": 0.3, "truncated": 0.4}, "max_completion_length"),
    (Kind.SHORTER, {"completions__mean_length": 9.0}, "from 36 to 9 tokens"),
    (Kind.LONGER, {"completions__mean_length": 144.0}, "from 36 to 144 tokens"),
    (Kind.TRUNCATED, {"truncated": 0.6}, "60% of the completions are cut off at 160 tokens"),
    (Kind.FRAME, {"grounding_iou": 0.02}, "model.frame"),
    (Kind.FRAME, {"grounding_iou": 0.0, "boxes": 0.0, "rejected_boxes": 1.5}, "wrong frame (qwen2_5_vl)"),
    (Kind.UNIT, {"boxes": 0.5, "rejected_boxes": 1.5, "boxes_in_another_unit": 1.5}, "1.5 of the 2.0 boxes"),
    (Kind.UNIT, {"grounding_iou": 0.0, "boxes": 0.0, "rejected_boxes": 1.0, "boxes_in_another_unit": 1.0}, "model.frame"),
    (Kind.ENTROPY, {"entropy": 0.001}, "0.001 nats (at first 0.600)"),
    (Kind.ENTROPY, {"entropy": 0.04}, "train.beta"),
    (Kind.KL, {"kl": 1.5}, "train.beta"),
    (Kind.CLIPPED, {"clip_ratio__region_mean": 0.4}, "train.num_iterations"),
    (Kind.UNJUDGED, {"judge__unjudged": 0.3}, "judge.timeout_seconds"),
    (Kind.FAILED, {"failed": 0.1}, "opengrit data check"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "wrong", "said"), EARNED, ids=lambda value: getattr(value, "name", None))
def test_what_goes_wrong_for_five_rows_raises_one_alarm_with_cause_and_remedy(kind, wrong, said):
    found = alarms([*rows(10), *rows(WINDOW, first=11, **wrong)], SETTING)
    assert kinds(found) == [kind]
    assert said in found[0].text
    assert "\n" not in found[0].text


# As above but short of it: what a run that goes well may show.
NOT_EARNED = [
    {
        "reward": 0.0,
        "reward_std": 0.5,
        "format": 0.9,
    },  # a mean of 0 over rewards that differ; it fell, though
    {"frac_reward_zero_std": 0.85},
    {"reward": 1.3},
    {"format": 0.6},
    {"completions__mean_length": 10.0},
    {"completions__mean_length": 140.0},
    {"completions__mean_length": 9.0, "reward": 2.6},  # shorter and better
    {"completions__mean_length": 144.0, "reward": 2.6},
    {"truncated": 0.4},
    {"grounding_iou": 0.06, "accuracy": 0.6},  # boxes and answers get worse
    {"boxes": 2.0, "rejected_boxes": 0.5, "boxes_in_another_unit": 0.5},
    {"grounding_iou": 0.0, "boxes": 0.2},  # few boxes: their absence, and no frame, makes the IoU small
    {"entropy": 0.07},
    {"kl": 0.9},
    {"clip_ratio__region_mean": 0.2},
    {"judge__unjudged": 0.1},
    {"failed": 0.04},
    {"grad_norm": 30.0},
    {"grad_norm": 0.0},
]


@pytest.mark.parametrize("odd", NOT_EARNED, ids=str)
def test_what_is_only_odd_raises_none(odd):
    found = alarms([*rows(10), *rows(WINDOW, first=11, **odd)], SETTING)
    assert set(kinds(found)) <= ({Kind.REWARD_FELL} if odd.get("reward") == 0.0 else set())


def test_one_bad_row_is_no_trend():
    for _, wrong, _ in EARNED:
        assert alarms([*rows(10), *rows(1, first=11, **wrong)], SETTING) == []


def test_a_reward_that_is_always_0_is_one_alarm_and_not_one_of_flat_groups_too():
    zero = {"reward": 0.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0}
    found = alarms(rows(8, **zero), SETTING)
    assert [(alarm.kind, alarm.step) for alarm in found] == [(Kind.REWARD_IS_ZERO, 5)]
    assert "records.jsonl" in found[0].text
    assert alarms(rows(4, **zero), SETTING) == []


def test_no_box_since_the_run_began_is_an_alarm_and_a_box_once_is_none():
    without = rows(WINDOW, boxes=0.0, grounding_iou=0.0)
    assert kinds(alarms(without, SETTING)) == [Kind.NO_BOXES]
    assert "grounded-icl" in alarms(without, SETTING)[0].text
    assert alarms([*rows(1), *rows(WINDOW, first=2, boxes=0.0, grounding_iou=0.0)], SETTING) == []
    direct = Setting(max_completion_length=160, frame="qwen2_5_vl", asks_for_boxes=False)
    assert alarms(without, direct) == []


def test_a_gradient_or_a_loss_that_is_not_finite_is_an_alarm_at_once_in_memory_and_in_the_file():
    for value in (math.nan, math.inf, None):  # None: null, as the file has it
        assert kinds(alarms(rows(1, grad_norm=value), SETTING)) == [Kind.GRADIENT]
        assert kinds(alarms(rows(1, loss=value), SETTING)) == [Kind.LOSS]


def test_a_gradient_a_hundred_times_the_usual_is_an_alarm_once_there_is_a_usual():
    assert kinds(alarms([*rows(5), *rows(1, first=6, grad_norm=40.0)], SETTING)) == [Kind.GRADIENT]
    assert alarms([*rows(4), *rows(1, first=5, grad_norm=40.0)], SETTING) == []
    still = rows(5, grad_norm=0.0)  # groups without variance have none: no measure of the usual
    assert alarms([*still, *rows(1, first=6)], SETTING) == []


def test_a_policy_ten_nats_away_is_an_alarm_in_its_first_row():
    assert kinds(alarms(rows(1, kl=11.0), SETTING)) == [Kind.KL]


def test_steps_that_were_left_out_are_said_to_have_changed_nothing_whatever_the_last_steps_gradient_is():
    for norm in (0.4, None):
        found = alarms(rows(1, grad_norm=norm, nonfinite__skipped_step=0.25), SETTING)  # one step of four
        assert kinds(found) == [Kind.GRADIENT]
        assert "25% of the row's steps had no finite loss or gradient and were skipped" in found[0].text
        assert "without changing a weight" in found[0].text
        assert "train.learning_rate" in found[0].text
    both = rows(1, grad_norm=None, loss=None, nonfinite__skipped_step=1.0)
    assert kinds(alarms(both, SETTING)) == [Kind.GRADIENT]  # one cause, one alarm
    assert alarms(rows(3, nonfinite__skipped_step=0.0), SETTING) == []


# Measured when a generation is drawn: rows of steps that learn from it again have none of these.
ONCE = (
    "reward", "reward_std", "frac_reward_zero_std", "completions/mean_length", "accuracy", "boxes", "rejected_boxes",
    "boxes_in_another_unit", "grounding_iou", "format", "truncated", "failed", "judge/unjudged",
)  # fmt: skip


def reused(history: list[dict[str, object]], iterations: int) -> list[dict[str, object]]:
    """The same history where each generation is learned from several times."""
    again = [{key: value for key, value in row.items() if key not in ONCE} for row in history]
    found = [
        row for pair in zip(history, again, strict=True) for row in (pair[0], *[pair[1]] * (iterations - 1))
    ]
    return [{**row, "step": step} for step, row in enumerate(found, start=1)]


@pytest.mark.parametrize("iterations", [2, 3, 5])
def test_a_generation_that_is_learned_from_several_times_hides_no_alarm(iterations):
    setting = dataclasses.replace(SETTING, num_iterations=iterations)
    for kind, wrong, _ in EARNED:
        history = reused([*rows(10), *rows(WINDOW, first=11, **wrong)], iterations)
        assert kinds(alarms(history, setting)) == [kind]
    zero = {"reward": 0.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0}
    assert kinds(alarms(reused(rows(WINDOW, **zero), iterations), setting)) == [Kind.REWARD_IS_ZERO]
    # Values that are farther apart than a generation's use are no window: most rows measured nothing.
    rare = [{**row, "truncated": 1.0 if row["step"] % (3 * iterations) == 0 else None} for row in rows(60)]
    assert alarms(rare, setting) == []


def test_one_skipped_generation_is_no_alarm_however_many_steps_it_is():
    setting = dataclasses.replace(SETTING, num_iterations=3)
    skipped = {"judge__skipped_step": 1.0}
    once = reused([*rows(10), *rows(1, first=11, **skipped), *rows(3, first=12)], 3)
    assert alarms(once, setting) == []
    twice = reused([*rows(10), *rows(2, first=11, **skipped)], 3)
    assert kinds(alarms(twice, setting)) == [Kind.SKIPPED]
    assert "40% of the last 15 rows' steps" in alarms(twice, setting)[0].text


def test_skipped_steps_are_an_alarm_of_their_own_and_say_nothing_about_rewards():
    skipped = {"reward": math.nan, "frac_reward_zero_std": 1.0, "judge__skipped_step": 1.0}
    found = alarms([*rows(10), *rows(2, first=11, **skipped)], SETTING)
    assert kinds(found) == [Kind.SKIPPED]  # two of five rows
    assert "40% of the last 5 rows' steps" in found[0].text
    assert alarms([*rows(10), *rows(1, first=11, **skipped)], SETTING) == []


def test_completions_that_are_all_cut_off_have_no_reward_and_are_not_a_reward_of_zero():
    cut = rows(
        WINDOW, truncated=1.0, reward=None, reward_std=None, format=None, boxes=None, grounding_iou=None
    )
    assert kinds(alarms(cut, SETTING)) == [Kind.TRUNCATED]


def test_a_fall_that_is_within_what_steps_vary_by_is_none():
    # Rewards of 0 and 2 in turn: windows of five have means between 0.8 and 1.2 and a standard error of 0.49.
    restless = [{**row, "reward": 2.0 * (row["step"] % 2)} for row in rows(30)]
    assert alarms(restless, SETTING) == []
    # One of them low: a mean of 0.4 is half of 1.2 and less, but 0.8 is less than four of its errors.
    restless += [{**row, "reward": 2.0 * (row["step"] == 33)} for row in rows(5, first=31)]
    assert alarms(restless, SETTING) == []


def test_an_alarm_is_raised_once_and_again_only_when_it_had_gone_for_a_window():
    bad, good = {"truncated": 0.9}, {}
    history = [*rows(10, **bad), *rows(3, first=11, **good), *rows(10, first=14, **bad)]
    assert kinds(alarms(history, SETTING)) == [Kind.TRUNCATED]
    history = [*rows(10, **bad), *rows(15, first=11, **good), *rows(10, first=26, **bad)]
    found = alarms(history, SETTING)
    # The first five rows; then the window's mean is past a half with the third bad row of five.
    assert [(alarm.kind, alarm.step) for alarm in found] == [(Kind.TRUNCATED, 5), (Kind.TRUNCATED, 28)]


def test_a_monitor_that_recalls_a_history_raises_what_one_that_saw_it_raises():
    history = [
        *rows(8),
        *rows(6, first=9, truncated=0.9),
        *rows(9, first=15),
        *rows(12, first=24, truncated=0.9),
    ]
    for seen in range(len(history)):
        saw, recalls = AlarmMonitor(SETTING), AlarmMonitor(SETTING)
        for row in history[:seen]:
            saw.take(row)
        recalls.recall([*history[:seen], {"step": seen, "eval/stickers/count/n": 32.0}])
        assert [saw.take(row) for row in history[seen:]] == [recalls.take(row) for row in history[seen:]]


def test_only_the_main_process_of_a_resumed_run_looks_back(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="model: {name: toy}\ntrain: {seed: 1}\n")
    with run.append_metrics() as writer:
        for row in rows(WINDOW, truncated=0.9):
            writer.write_metrics(row)
    with run.append_alarms() as writer:
        writer.write_metrics(alarm_row(alarm(7)))
    args, state = SimpleNamespace(gradient_accumulation_steps=1), SimpleNamespace(global_step=WINDOW)
    for leads in (False, True):
        trainer = SimpleNamespace(
            step_log=StepLog(run, setting=SETTING),
            accelerator=SimpleNamespace(is_main_process=leads),
            times=StepTimes(),
        )
        GritCallback(trainer).on_train_begin(args, state, None)
        raised = [
            found
            for row in rows(WINDOW, first=6, truncated=0.9)
            for found in trainer.step_log.monitor.take(row)
        ]
        assert kinds(raised) == ([] if leads else [Kind.TRUNCATED])
        assert alarms_of(run.alarms()) == ([] if leads else [alarm(7)])


def test_evaluations_between_the_steps_say_nothing():
    probe = {"step": 5, "eval/stickers/count/format": 0.0, "eval/stickers/count/n": 32.0}
    monitor = AlarmMonitor(SETTING)
    assert [monitor.take(row) for row in [*rows(5), probe, *rows(5, first=6)]] == [[]] * 11


# Steps 1, 2, 5, 10, 20 and 40 of `demo` with its seed 0, for each of its two models, as they were
# written; with each row five times over this is the history of a run that goes well, in short.
DEMOS = {
    "tiny-qwen2.5-vl": [
        (1.517, 0.853, 0.00, 0.569, 18.4, 0.244, 0.272, 0.763, 0.450, 3.481),
        (1.854, 0.734, 0.00, 0.549, 21.6, 0.375, 0.243, 0.844, 0.606, 1.562),
        (2.164, 0.650, 0.00, 0.547, 26.5, 0.625, 0.329, 1.119, 0.706, 0.671),
        (2.376, 0.620, 0.00, 0.637, 36.4, 0.975, 0.515, 1.994, 0.694, 0.366),
        (2.669, 0.426, 0.45, 0.588, 36.3, 0.994, 0.586, 1.956, 0.912, 0.263),
        (2.690, 0.453, 0.60, 0.584, 36.8, 0.988, 0.588, 2.038, 0.931, 0.241),
    ],
    "tiny-internvl3": [
        (1.516, 0.846, 0.00, 0.499, 19.1, 0.237, 0.334, 0.831, 0.444, 2.974),
        (1.811, 0.783, 0.00, 0.455, 21.9, 0.369, 0.328, 0.881, 0.544, 1.720),
        (2.089, 0.712, 0.00, 0.450, 25.3, 0.550, 0.372, 1.062, 0.675, 0.709),
        (2.491, 0.577, 0.30, 0.502, 34.8, 0.931, 0.643, 1.844, 0.819, 0.320),
        (2.543, 0.509, 0.55, 0.474, 35.3, 0.994, 0.668, 1.887, 0.838, 0.216),
        (2.654, 0.460, 0.65, 0.485, 36.8, 0.988, 0.697, 2.019, 0.912, 0.266),
    ],
}  # fmt: skip
_COLUMNS = (
    "reward", "reward_std", "frac_reward_zero_std", "entropy", "completions/mean_length", "format",
    "grounding_iou", "boxes", "accuracy", "grad_norm",
)  # fmt: skip


@pytest.mark.parametrize("name", DEMOS)
def test_the_demo_raises_none(name):
    history = [dict(zip(_COLUMNS, values, strict=True)) for values in DEMOS[name] for _ in range(WINDOW)]
    assert alarms([{**HEALTHY, **row, "step": i} for i, row in enumerate(history, start=1)], SETTING) == []


def test_a_loss_of_nothing_is_explained_and_no_alarm():
    quiet = {"loss": 4.8e-8, "frac_reward_zero_std": 0.1}
    assert "normal here" in zero_loss_is_normal(quiet, SETTING)
    assert zero_loss_is_normal(quiet | {"loss": 0.2}, SETTING) is None
    assert zero_loss_is_normal(quiet | {"frac_reward_zero_std": 1.0}, SETTING) is None
    assert (
        zero_loss_is_normal(quiet | {"frac_reward_zero_std": math.nan}, SETTING) is None
    )  # nothing measured
    with_kl = Setting(max_completion_length=160, frame="qwen2_5_vl", beta=0.04)
    assert zero_loss_is_normal(quiet, with_kl) is None
    assert Kind.LOSS not in kinds(alarms(rows(10, loss=0.0), SETTING))


# Where an alarm goes.


def alarm(step: int = 5, kind: Kind = Kind.TRUNCATED) -> Alarm:
    return Alarm(step, kind, "60% of the completions are cut off; raise train.max_completion_length")


def test_alarms_of_a_run_are_read_back_once_each(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="model: {name: toy}\ntrain: {seed: 1}\n")
    assert list(run.alarms()) == []
    with run.append_alarms() as writer:
        for one in (alarm(), alarm(7, Kind.KL), alarm()):  # a resumed run repeats its steps
            writer.write_metrics(alarm_row(one))
    assert alarms_of(run.alarms()) == [alarm(), alarm(7, Kind.KL)]
    lines = Path(tmp_path / "run" / "alarms.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"step": 5, "alarm": "truncated", "text": alarm().text}


def test_alarms_of_steps_that_a_resumed_run_takes_anew_are_void():
    first, second = [alarm(40), alarm(80, Kind.KL)], [alarm(70), alarm(90, Kind.KL)]
    lines = [*map(alarm_row, first), resumed_row(50), *map(alarm_row, second)]
    assert alarms_of(lines) == [alarm(40), alarm(70), alarm(90, Kind.KL)]
    assert alarms_of([*lines, resumed_row(0)]) == []
    assert alarms_of([resumed_row(50), alarm_row(alarm(50))]) == [alarm(50)]


def test_the_report_of_a_training_shows_its_alarms_escaped(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="model: {name: toy}\ntrain: {seed: 1}\n")
    with run.append_metrics() as writer:
        writer.write_metrics(rows(1)[0])
    assert "Alarms raised" not in build_report(load_runs([run.path]))
    with run.append_alarms() as writer:
        writer.write_metrics(alarm_row(Alarm(5, Kind.TRUNCATED, "<b>cut off</b>")))
    page = build_report(load_runs([run.path]))
    assert "Step 5, <strong>truncated</strong>: &lt;b&gt;cut off&lt;/b&gt;." in page


def test_alarms_stand_under_the_table_of_a_terminal_80_wide():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with ProgressTable(num_steps=40, console=console) as table:
        for step, kind in enumerate(Kind, start=1):
            table.warn(alarm(step, kind))
        table.show({"step": 20, "reward": 2.5, "parts/tag_pairs": 0.75, "parts/box_count": 0.5})
    shown = console.file.getvalue()
    assert "alarms:" in shown
    assert f"{len(Kind) - 3} earlier" in shown.replace("\n", " ")
    bare = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", shown)
    assert max(len(line.rstrip()) for line in bare.splitlines()) <= 80


def test_the_log_goes_above_the_table_while_it_lives_and_back_afterwards(monkeypatch):
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    handler = logging.StreamHandler()  # as the commands set it up
    log = logging.getLogger("opengrit")
    log.addHandler(handler)
    try:
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with ProgressTable(num_steps=40, console=console):
            log.warning("something went wrong")
        assert "something went wrong" in console.file.getvalue()
        assert handler.stream is plain
    finally:
        log.removeHandler(handler)
    assert "something went wrong" not in plain.getvalue()


# In a training.

SHORT = [
    "train.questions_per_step=2",
    "train.num_generations=2",
    "train.per_device_train_batch_size=4",
    "data.eval=[]",
]


@pytest.mark.trains
def test_a_training_says_once_that_all_is_cut_off_even_where_it_is_resumed(tmp_path, caplog):
    recipe = load_recipe(
        "demo",
        [*SHORT, "train.max_steps=11", "train.save_steps=5", "train.max_completion_length=4"],
    )
    with caplog.at_level("WARNING", logger="opengrit"):
        run = train(recipe, tmp_path / "run", quiet=True)
    assert [(one.step, one.kind) for one in alarms_of(run.alarms())] == [(5, Kind.TRUNCATED)]
    assert (
        caplog.text.count("alarm at step 5, truncated: 95% of the completions are cut off at 4 tokens") == 1
    )
    measured: dict[int, set[str]] = {}
    for record in run.records():
        if record.score.total is not None:
            measured.setdefault(record.step, set()).add(record.example.id)
    shares = [row["frac_reward_zero_std"] for row in run.metrics()]
    assert shares == [1.0 if step in measured else None for step in range(1, 12)]
    assert None in shares
    assert {record.advantage for record in run.records()} == {0.0}  # without a total nothing is taught
    # From its fifth step on the run is taken again: what was said by then is not said again.
    for left in ("final", "checkpoints/step-000010", "checkpoints/step-000011"):
        if (run.path / left).exists():
            (run.path / left).rename(tmp_path / left.replace("/", "-"))
    with run.append_alarms() as writer:
        writer.write_metrics(alarm_row(alarm(9, Kind.KL)))  # of a history that is gone through anew
    again = train(recipe, run.path, resume=True, quiet=True)
    assert [row["step"] for row in again.metrics()] == [*range(1, 12), *range(6, 12)]
    assert list(again.alarms())[2:] == [resumed_row(5)]
    assert [(one.step, one.kind) for one in alarms_of(again.alarms())] == [(5, Kind.TRUNCATED)]


@pytest.mark.trains
def test_the_share_of_flat_groups_in_the_metrics_is_that_of_the_records(tmp_path):
    changes = [
        "train.questions_per_step=10",
        "train.per_device_train_batch_size=20",
        "train.num_generations=2",
    ]
    recipe = load_recipe("demo", ["data.eval=[]", "train.max_steps=1", *changes])
    run = train(recipe, tmp_path / "run", quiet=True)
    groups: dict[str, list[float]] = {}
    for record in run.records():
        groups.setdefault(record.example.id, []).append(record.score.total)
    flat = sum(abs(one - other) < 1e-9 for one, other in groups.values())
    assert 0 < flat < 10  # so that the test says something
    assert next(run.metrics())["frac_reward_zero_std"] == pytest.approx(flat / 10)


# Boxes that drift.


def trained(areas, *, boxes=2.0, accuracies=(0.6, 0.9), ious=None):
    """Rows of a training whose covered area, boxes and accuracy go evenly from one value to another."""
    count = 20
    even = [i / (count - 1) for i in range(count)]
    sizes = boxes if isinstance(boxes, tuple) else (boxes, boxes)
    return [
        {
            **HEALTHY,
            "step": i + 1,
            "covered_area": areas[0] + (areas[1] - areas[0]) * part,
            "boxes": sizes[0] + (sizes[1] - sizes[0]) * part,
            "accuracy": accuracies[0] + (accuracies[1] - accuracies[0]) * part,
            **({} if ious is None else {"grounding_iou": ious[0] + (ious[1] - ious[0]) * part}),
        }
        for i, part in enumerate(even)
    ]


def without_format(found, *, until):
    return [{**row, "format": 0.4 if row["step"] < until else 0.97} for row in found]


@pytest.mark.parametrize(
    ("rows_of_run", "raised"),
    [
        (trained((0.20, 0.14)), True),  # boxes shrink while answers get better
        (trained((0.20, 0.14), ious=(0.66, 0.47)), True),
        (trained((0.20, 0.14), ious=(0.30, 0.60)), False),  # they were too large
        (trained((0.20, 0.14), boxes=(3.0, 2.0)), False),  # fewer boxes of the same size
        (trained((0.20, 0.14), accuracies=(0.9, 0.6)), False),  # another failure, with alarms of its own
        (trained((0.20, 0.19)), False),
        (trained((0.14, 0.20)), False),
        (trained((0.20, 0.20), ious=(0.52, 0.39)), True),  # the demo at 3e-4
        (trained((0.20, 0.20), ious=(0.57, 0.53)), False),  # and at 1e-4
        (trained((0.20, 0.20), ious=(0.52, 0.39), accuracies=(0.9, 0.6)), False),
        (trained((0.20, 0.20), ious=(0.39, 0.52)), False),
        (without_format(trained((0.20, 0.14)), until=12), False),  # boxes of a format that is being learned
    ],
)
def test_boxes_that_shrink_while_answers_get_better_drift(rows_of_run, raised):
    found = [alarm for alarm in alarms(rows_of_run, SETTING) if alarm.kind is Kind.DRIFT]
    assert len(found) == raised
    if raised:
        remedies = [
            found[0].text.index(word) for word in ("learning_rate", "train.beta", "box_dual", "asking_again")
        ]
        assert remedies == sorted(remedies)


def evaluated(*answers, questions=40):
    """A run that evaluated `questions` after each of its steps, each followed by the step's row.

    `answers` say of each evaluation how many of the questions have another value than the others: [right, iou, needed].
    """
    found = []
    for step, (count, odd, usual) in enumerate(answers, start=1):
        of_each = {f"q{i}#0": odd if i < count else usual for i in range(questions)}
        found += [{"step": step, "data": "stickers/count", "answers": of_each}, {**HEALTHY, "step": step}]
    return found


NEEDED, LESS, MUCH_LESS, WRONG = (1, 0.6, 1.0), (1, 0.6, 0.5), (1, 0.6, 0.0), (0, 0.6, 0.5)
ON_THEM, BESIDE_THEM = (1, 0.8, None), (1, 0.4, None)
BEFORE = (0, LESS, NEEDED)
# 8 of 40 fall by 0.5: by 0.1 on average, with an interval of 0.063 on either side (1.96 x 0.2026 / sqrt 40).
FELL = (8, LESS, NEEDED)


@pytest.mark.parametrize(
    ("found", "raised"),
    [
        (evaluated(BEFORE, BEFORE, FELL, FELL), True),
        (evaluated(FELL, BEFORE, FELL, FELL), True),  # since the best
        (evaluated(BEFORE, BEFORE, BEFORE, FELL), False),  # once is noise
        (evaluated(BEFORE, BEFORE, (7, LESS, NEEDED), (7, LESS, NEEDED)), False),  # by less than 0.1
        (evaluated(BEFORE, BEFORE, (8, WRONG, NEEDED), (8, WRONG, NEEDED)), False),  # it answers worse, too
        # One of ten falls by 1: by 0.1 on average, with an interval of 0.196 on either side.
        (evaluated(BEFORE, BEFORE, *[(1, MUCH_LESS, NEEDED)] * 2, questions=10), False),
        (evaluated(BEFORE, BEFORE, *[(9, MUCH_LESS, NEEDED)] * 2, questions=9), False),  # too few
        # From 0.8 to 0.67, 84 % of it; to 0.7, 87 %.
        (evaluated(*[(0, BESIDE_THEM, ON_THEM)] * 2, *[(13, BESIDE_THEM, ON_THEM)] * 2), True),
        (evaluated(*[(0, BESIDE_THEM, ON_THEM)] * 2, *[(10, BESIDE_THEM, ON_THEM)] * 2), False),
    ],
)
def test_boxes_that_fall_clear_of_chance_in_two_evaluations_drift(found, raised):
    assert [alarm.kind for alarm in alarms(found, SETTING)].count(Kind.DRIFT) == raised
    # A run that resumed behind the evaluations has seen them.
    monitor = AlarmMonitor(SETTING)
    monitor.recall([one for one in found if one["step"] < 4])
    later = [alarm.kind for one in found if one["step"] == 4 for alarm in monitor.take(one)]
    assert later.count(Kind.DRIFT) == raised
    # And so has whoever reads its two files.
    read = rows_of([one for one in found if "loss" in one], [one for one in found if "data" in one])
    assert read == found


def test_of_steps_taken_anew_the_newest_rows_are_read_and_the_means_of_evaluations_are_not():
    old, new = evaluated(BEFORE, BEFORE), evaluated(BEFORE, FELL)
    metrics = [{"step": 1, "eval/stickers/count/accuracy": 0.5}, *(one for one in old + new if "loss" in one)]
    assert rows_of(metrics, [one for one in old + new if "data" in one]) == new
