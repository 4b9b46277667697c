"""Weights & Biases without a network and a local MLflow: the real packages have the numbers, the tables and one run after a resume."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys

import pytest
from drawings import check_frame
from PIL import Image

from engines import ROOT, environment, run
from opengrit.runs.folder import RunDir

pytestmark = pytest.mark.needs("trackers")

SETTINGS = {
    "train.report_to": "[wandb, mlflow]",
    "train.log_rollouts_steps": 2,
    "train.max_steps": 3,
    "train.num_generations": 2,
    "train.questions_per_step": 4,
    "train.per_device_train_batch_size": 8,
    "train.max_completion_length": 80,
    "train.save_steps": 2,
    "data.eval": "[]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A home without a key, where a training of three steps loses its last one and takes it again."""
    home = tmp_path_factory.mktemp("trackers")
    places = {"HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    sets = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "opengrit",
        "train",
        "demo",
        *sets,
        "--out",
        str(home / "run"),
    ]
    # MLflow writes artifacts below the working folder.
    run(command, environment("trackers", **places), folder=home)
    for lost in ("final", "checkpoints/step-000003"):
        shutil.rmtree(home / "run" / lost)
    run([*command, "--resume"], environment("trackers", **places), folder=home)
    return home


def rows_of(folder):
    return {
        row.pop("step"): {k: v for k, v in row.items() if v is not None}
        for row in RunDir.open(folder / "run").metrics()
    }


def histories(folder):
    """The folder of each part of wandb's run, with the rows of its history."""
    for part in sorted((folder / "run" / "wandb").glob("offline-run-*")):
        [file] = part.glob("*.wandb")
        said = run(
            [sys.executable, str(ROOT / "tests/support/wandb_file.py"), str(file)], environment("trackers")
        )
        yield part, [json.loads(line) for line in said.splitlines()]


def test_wandb_offline_has_the_numbers_under_one_id_in_both_parts(folder):
    found, ids = {}, []
    for part, history in histories(folder):
        ids.append(part.name.rpartition("-")[2])
        for row in history:
            found.setdefault(row["train/global_step"], {}).update(row)
    assert ids == [RunDir.open(folder / "run").id] * 2
    for step, row in rows_of(folder).items():
        assert {name: found[step][f"train/{name}"] for name in row} == row


def test_wandb_shows_rollouts_in_a_table_and_their_pictures_with_boxes(folder):
    records = {record.id: record for record in RunDir.open(folder / "run").records()}
    shown = checked = 0
    for part, history in histories(folder):
        for logged in (row for row in history if "rollouts/path" in row):
            table = json.loads((part / "files" / logged["rollouts/path"]).read_text())
            for values, place in zip(table["data"], logged["rollouts/pictures/filenames"], strict=True):
                row = dict(zip(table["columns"], values, strict=True))
                record = records[row["id"]]
                assert (row["question"], row["reward"]) == (record.example.question, record.score.total)
                shown += 1
                if len(record.transcript.boxes) == 1:
                    check_frame(Image.open(part / "files" / place), record.transcript.boxes[0])
                    checked += 1
    assert shown == 16
    assert checked


def test_mlflow_has_one_run_with_the_numbers_and_the_pictures(folder):
    with sqlite3.connect(folder / "mlflow.db") as database:
        [(name, status, place)] = database.execute("select name, status, artifact_uri from runs").fetchall()
        stored = database.execute("select key, value, step from metrics order by timestamp").fetchall()
    assert (name[:4], status) == ("run-", "FINISHED")
    found = {(step, key): value for key, value, step in stored}
    for step, row in rows_of(folder).items():
        assert {key: found[step, f"train/{key}"] for key in row} == row
    records = {record.id: record for record in RunDir.open(folder / "run").records()}
    artifacts = folder / place.removeprefix("file://")
    checked = 0
    for file in artifacts.glob("rollouts/*.json"):
        table = json.loads(file.read_text())
        for values in table["data"]:
            row = dict(zip(table["columns"], values, strict=True))
            boxes = records[row["id"]].transcript.boxes
            if len(boxes) == 1:
                check_frame(Image.open(artifacts / row["picture"]["filepath"]), boxes[0])
                checked += 1
    assert checked
