"""Models, rows and pictures are found from any working folder, and never taken for others of the same name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
from edited_data import (
    ANSWER,
    NUM_ROWS,
    command,
    data_set,
)

from opengrit.core.types import Completion, Finish
from opengrit.grounding.frames import frame_for
from opengrit.grounding.parsing import parse
from opengrit.runs.folder import RunDir

# -- paths ------------------------------------------------------------------------------------------------------------


def evaluated_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An evaluation of `runs/mine` with relative paths everywhere, made in `folder`."""
    (folder / "runs" / "mine").mkdir(parents=True)
    tiny_random.save(tiny_random.qwen(), folder / "runs" / "mine" / "final")
    data_set(folder / "data")
    monkeypatch.chdir(folder)
    asked = ["eval", "--model", "runs/mine", "--data", "data/rows.jsonl", "--images", "data/pictures"]
    command(*asked, "--out", "runs/after", "--max-new-tokens", 6, "--quiet")
    # What a random model writes has no boxes: give it some.
    run = RunDir(folder / "runs" / "after")
    with run.append_records() as writer:
        for one in list(run.records()):
            completion = Completion(ANSWER, one.completion.token_ids, Finish.STOP)
            writer.write_record(
                replace(
                    one, completion=completion, transcript=parse(ANSWER, frame_for("pixels", one.seen_size))
                )
            )
    return run.path


def test_a_run_is_probed_and_reported_from_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    run = evaluated_here(tmp_path / "project", monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with caplog.at_level("WARNING", logger="opengrit"):
        command("probe", run, "--out", "probes", "--probe", "keep", "--quiet")
        command("report", run, "probes", "--out", "report.html")
    assert not caplog.records
    assert not any(record.failure for record in RunDir.open("probes").records())
    assert (tmp_path / "elsewhere" / "report.html").read_text().count("data:image/png;base64,") >= NUM_ROWS
    # And from a third one, what was probed here.
    monkeypatch.chdir(tmp_path)
    command("report", "elsewhere/probes", "--out", "third.html")
    assert not caplog.records


def test_a_project_that_moved_as_a_whole_is_found_and_parts_that_moved_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    evaluated_here(tmp_path / "project", monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").rename(tmp_path / "moved")
    probes = ["probe", "moved/runs/after", "--probe", "keep", "--quiet", "--out"]
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*probes, "one")
    assert not caplog.records
    (tmp_path / "moved" / "runs" / "mine").rename(tmp_path / "model")
    (tmp_path / "moved" / "data" / "pictures").rename(tmp_path / "pictures")
    assert "none of moved/runs/after can be found" in (said := command(*probes, "two", code=2))
    assert "--images" in said
    said = command(*probes, "two", "--images", "pictures", code=2)
    assert str(tmp_path / "moved" / "runs" / "mine" / "final") in said
    assert "--model" in said
    command(*probes, "two", "--images", "pictures", "--model", "model")
    assert not any(record.failure for record in RunDir.open("two").records())
    # Another model is not taken for it.
    tiny_random.save(tiny_random.qwen(seed=5), tmp_path / "other")
    said = command(*probes, "three", "--images", "pictures", "--model", "other", code=2)
    assert f"'other' is the folder {tmp_path / 'other'} (SHA-256 " in said


def test_a_folder_of_an_earlier_run_never_becomes_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluated_here(tmp_path / "project", monkeypatch)
    (run / "origin.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command("probe", run, "--out", "probes", "--probe", "keep", "--quiet")  # beside the run
    (tmp_path / "project" / "runs" / "mine").rename(tmp_path / "model")
    said = command("probe", run, "--out", "more", "--probe", "keep", "--quiet", code=2)
    assert "without a note whether that is a folder or a hub id" in said
    command("probe", run, "--out", "more", "--probe", "keep", "--quiet", "--model", tmp_path / "model")


def test_an_evaluation_does_not_continue_with_another_model_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluated_here(tmp_path / "project", monkeypatch)
    asked = ["eval", "--model", "runs/mine", "--data", "data/rows.jsonl", "--images", "data/pictures"]
    asked += ["--out", "runs/after", "--max-new-tokens", "6", "--quiet"]
    shutil.move("runs/mine/final", tmp_path / "kept")
    tiny_random.save(tiny_random.qwen(seed=5), Path("runs/mine/final"))
    before = (run / "records.jsonl").read_bytes()
    said = command(*asked, code=2)
    assert "resumes with the same model" in said
    assert said.count("SHA-256") == 2
    assert (run / "records.jsonl").read_bytes() == before
    shutil.rmtree("runs/mine/final")
    shutil.move(tmp_path / "kept", "runs/mine/final")
    command(*asked)
