"""Trackers get what metrics.jsonl gets, continue in a resumed run, and show rollouts with their boxes where the model wrote them."""

from __future__ import annotations

import io
import shutil

import pytest
from drawings import check_frame
from PIL import Image

from opengrit.core.errors import RecipeError
from opengrit.recipes.sft_recipe import load_sft_recipe
from opengrit.recipes.training_recipe import load_recipe
from opengrit.training import trackers
from opengrit.training.run import train
from opengrit.training.sft import fine_tune
from opengrit.training.trackers.protocol import Tracked
from opengrit.training.trackers.rollouts import MOST_ROLLOUTS, drawn, shown_rollouts

tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
trackio = pytest.importorskip("trackio")

CHANGES = [
    "train.report_to=[tensorboard, trackio]",
    "train.project=tracked",
    "train.log_rollouts_steps=2",
    "train.max_steps=3",
    "train.num_generations=2",
    "train.questions_per_step=4",
    "train.per_device_train_batch_size=8",
    "train.max_completion_length=80",
    "train.save_steps=2",
    "train.eval_steps=2",
    "data.eval=[stickers/count]",
    "eval.max_completion_length=16",
]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A training of three steps, which then loses its last one and takes it again from the checkpoint before."""
    out = tmp_path_factory.mktemp("tracked") / "first"
    recipe = load_recipe("demo", CHANGES)
    run = train(recipe, out, quiet=True)
    for lost in (out / "final", run.checkpoint_path(3)):
        shutil.rmtree(lost)
    return train(recipe, out, resume=True, quiet=True)


def rows_of(run):
    """The last row of each step, and of each step's evaluation, by tracker's names; nothing that was not measured."""
    found = {}
    for row in run.metrics():
        prefix = "" if any(name.startswith("eval/") for name in row) else "train/"
        step = row.pop("step")
        found |= {(step, prefix + name): value for name, value in row.items() if value is not None}
    return found


def trackio_logs(run):
    name = Tracked.of(run, project="tracked", checkpoint=None).name
    assert trackio.sqlite_storage.SQLiteStorage.get_runs("tracked") == [name]
    return trackio.sqlite_storage.SQLiteStorage.get_logs("tracked", name)


def test_trackio_has_the_numbers_of_metrics_jsonl_bit_for_bit(tracked):
    found = {}
    for entry in trackio_logs(tracked):
        found |= {(entry["step"], name): value for name, value in entry.items()}
    wanted = rows_of(tracked)
    assert {key: found[key] for key in wanted} == wanted
    assert {step for step, _ in wanted} == {1, 2, 3}
    assert any(name.startswith("eval/stickers/count/") for _, name in wanted)


def test_tensorboard_has_the_numbers_of_metrics_jsonl_once_a_step(tracked):
    import numpy as np

    events = tensorboard.EventAccumulator(str(tracked.path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    found = {
        (event.step, name): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)
    }
    wanted = {key: float(np.float32(value)) for key, value in rows_of(tracked).items()}
    assert {key: found[key] for key in wanted} == wanted
    assert [event.step for event in events.Scalars("train/reward")] == [1, 2, 3]  # 3 was taken twice


def test_rollouts_have_their_boxes_where_the_records_say(tracked):
    records = {record.id: record for record in tracked.records()}
    tables = {e["step"]: e["rollouts"]["_value"] for e in trackio_logs(tracked) if "rollouts" in e}
    assert sorted(tables) == [1, 2]  # with the first step, and then every two
    events = tensorboard.EventAccumulator(str(tracked.path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    checked = 0
    for step, rows in tables.items():
        assert len(rows) == MOST_ROLLOUTS
        for number, row in enumerate(rows, start=1):
            record = records[row["id"]]
            assert record.step == step
            assert (row["question"], row["expected"]) == (record.example.question, record.example.answer)
            assert row["answer"] == record.transcript.answer
            assert row["verdict"] == ("right" if record.verdict.correct else "wrong")
            assert row["reward"] == record.score.total
            assert {part: row[f"parts/{part}"] for part in record.score.parts} == record.score.parts
            pictures = [
                Image.open(trackio.utils.MEDIA_DIR / row["picture"]["file_path"]),
                *(
                    Image.open(io.BytesIO(image.encoded_image_string))
                    for image in events.Images(f"rollouts/{number}")
                    if image.step == step
                ),
            ]
            assert len(pictures) == 2
            if len(record.transcript.pointings) == 1:
                for picture in pictures:
                    check_frame(picture, record.transcript.boxes[0])
                checked += 1
    assert checked


def test_boxes_are_drawn_to_two_pixels_on_pictures_of_any_size(tmp_path):
    from dataclasses import replace

    from full_record import RECORD

    for width, height in ((60, 40), (640, 480), (3000, 1500)):
        path = tmp_path / f"{width}.png"
        Image.new("RGB", (width, height), "grey").save(path)
        record = replace(RECORD, example=replace(RECORD.example, image=str(path)))
        check_frame(drawn(record), record.transcript.boxes[0])


def test_a_picture_that_is_gone_and_a_failed_rollout_are_left_out_of_the_table(tmp_path, caplog):
    from dataclasses import replace

    from full_record import RECORD

    gone = replace(RECORD, example=replace(RECORD.example, image=str(tmp_path / "gone.png")))
    assert shown_rollouts([gone, replace(RECORD, failure="no picture")]) == []
    assert "missing from the trackers' table" in caplog.text


def test_fine_tuning_reports_its_loss_and_leaves_no_table(tmp_path):
    words = (
        "bf16: false, max_steps: 2, rows_per_step: 2, per_device_train_batch_size: 2, report_to: tensorboard"
    )
    changes = ["model=tiny-qwen2.5-vl", "lora={r: 2}", f"sft={{{words}}}"]
    run = fine_tune(load_sft_recipe("sft-demo", changes), tmp_path / "run")
    events = tensorboard.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([row["loss"] for row in run.metrics()], rel=1e-6)
    assert not events.Tags()["images"]


def test_a_tracker_that_is_not_installed_is_named_with_the_extra():
    with pytest.raises(
        RecipeError,
        match=r"train.report_to names installed trackers, no_such is not; pip install 'opengrit\[track\]'",
    ):
        trackers.check_installed(("no_such",), section="train")


@pytest.mark.parametrize("given", ["none", "[]"])
def test_no_tracker_is_the_default_and_may_be_said(given):
    assert load_recipe("demo", [f"train.report_to={given}"]).train.report_to == ()
    assert load_recipe("demo").train.report_to == ()
    with pytest.raises(RecipeError, match=r"train.report_to.*'trackio', 'wandb', 'tensorboard' or 'mlflow'"):
        load_recipe("demo", ["train.report_to=[swanlab]"])
