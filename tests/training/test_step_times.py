"""Where the time of a training goes: parts that do not overlap and add up to the whole, by step and over the run."""

from __future__ import annotations

import logging

import pytest
import tiny_random
from small_trainers import new_run, trainer

import opengrit.models
from opengrit.recipes.sft_recipe import load_sft_recipe
from opengrit.training.sft import fine_tune
from opengrit.training.step_times import OF_EXAMPLES, Part, StepTimes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_part_within_another_is_taken_out_of_it_and_the_rest_is_other() -> None:
    clock = Clock()
    times = StepTimes(clock=clock)
    times.start()
    with times.part(Part.LOSS):
        clock.now = 1.0
        with times.part(Part.DRAW):
            clock.now = 5.0
            times.add_tokens(30)
        clock.now = 7.0
    clock.now = 10.0
    row = times.row()
    assert row["seconds/draw"] == 4.0  # 1 to 5
    assert row["seconds/loss"] == 3.0  # 0 to 1 and 5 to 7
    assert row["seconds/other"] == 3.0  # 7 to 10
    assert row["tokens_per_second"] == 3.0  # 30 tokens in 10 s
    with times.part(Part.JUDGE):
        clock.now = 20.0
    assert times.row()["seconds/judge"] == 10.0
    # 20 s in all: judge 10, draw 4, loss 3, other 3; 30 tokens.
    assert times.summary() == (
        "20 s: judge 50%, draw 20%, loss 15%, other 15%; 2 sampled tokens a second, 50% of the time spent waiting for the judge"
    )


def test_a_run_says_where_its_time_went_by_step_and_in_one_line(
    tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_run(tmp_path)
    base = tiny_random.save(
        tiny_random.talkative(tiny_random.qwen()), tmp_path / "base"
    )  # TRL reloads the reference
    with caplog.at_level(logging.INFO, logger="opengrit"):
        trainer(tmp_path, run=run, loaded=opengrit.models.load(str(base)), beta=0.1).train()
    rows = list(run.metrics())
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        parts = {
            name: row[f"seconds/{name}"]
            for name in ("draw", "judge", "reference", "loss", "evaluate", "write", "other")
        }
        assert min(parts["draw"], parts["loss"], parts["reference"]) > 0
        assert min(parts.values()) >= 0
        sampled = 8 * row["completions/mean_length"]  # two passes of four rows
        assert row["tokens_per_second"] == pytest.approx(sampled / sum(parts.values()), rel=1e-6)
    [told] = [record.getMessage() for record in caplog.records if "the steps took" in record.getMessage()]
    assert "sampled tokens a second" in told
    assert "loss" in told


def test_fine_tuning_by_example_tells_tokens_read_and_the_share_that_waited_for_data(
    tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    times = StepTimes(OF_EXAMPLES, clock)
    times.start()
    with times.part(Part.PREPARE):
        clock.now = 1.0
        times.add_tokens(200)
    with times.part(Part.LOSS):
        clock.now = 10.0
    assert times.row() == {
        "seconds/prepare": 1.0,
        "seconds/loss": 9.0,
        "seconds/write": 0.0,
        "seconds/other": 0.0,
        "tokens_per_second": 20.0,
    }
    assert times.summary() == (
        "10 s: loss 90%, prepare 10%; 20 read tokens a second, 10% of the time spent waiting for data"
    )
    base = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), tmp_path / "base")
    changes = ["sft.max_steps=2", "sft.rows_per_step=2", "sft.per_device_train_batch_size=2"]
    recipe = load_sft_recipe("sft-demo", [*changes, f"model={base}", "sft.save_steps=null"])
    with caplog.at_level(logging.INFO, logger="opengrit"):
        rows = list(fine_tune(recipe, tmp_path / "run").metrics())
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert min(row["seconds/prepare"], row["seconds/loss"], row["tokens_per_second"]) > 0
    [told] = [record.getMessage() for record in caplog.records if "the steps took" in record.getMessage()]
    assert "read tokens a second" in told
