"""A run's folder only grows, survives a crash, and refuses a recipe that is not its own."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from full_record import RECORD

from opengrit.core.errors import RunError
from opengrit.runs.folder import RunDir, environment_facts, write_atomically
from opengrit.runs.recipe_comparison import recipe_hash

RECIPE = "model:\n  name: tiny\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_run_holds_its_recipe_hash_versions_and_seeds(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "runs" / "one", recipe=RECIPE, seeds={"seed": 3})
    assert run.recipe == RECIPE
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    assert environment["recipe_sha256"] == recipe_hash(RECIPE)
    assert environment["seeds"] == {"seed": 3}
    assert {"torch", "transformers", "trl"} <= environment["packages"].keys()


def test_the_environment_says_nothing_about_who_or_where() -> None:
    facts = json.dumps(environment_facts())
    for private in (os.uname().nodename, str(Path.home()), os.getcwd()):
        assert private not in facts


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"holds notes.txt; choose another --out"):
        RunDir.create(tmp_path, recipe=RECIPE)
    assert contents(tmp_path) == before


def test_an_empty_folder_and_one_with_only_our_staged_leftovers_are_new(tmp_path: Path) -> None:
    (tmp_path / ".staged-abc").write_text("half", encoding="utf-8")
    assert RunDir.create(tmp_path, recipe=RECIPE).recipe == RECIPE


def test_a_run_is_not_started_twice_without_resume(tmp_path: Path) -> None:
    RunDir.create(tmp_path, recipe=RECIPE)
    with pytest.raises(RunError, match="--resume"):
        RunDir.create(tmp_path, recipe=RECIPE)


def test_resume_takes_the_same_recipe_and_keeps_everything(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    with run.append_records() as writer:
        writer.write_record(RECORD)
    before = contents(tmp_path)
    again = RunDir.create(tmp_path, recipe=RECIPE, resume=True)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"environment.2.json"}
    assert list(again.records()) == [RECORD]


def test_resume_refuses_another_recipe_and_an_empty_folder(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "one", recipe=RECIPE)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="its own recipe"):
        RunDir.create(tmp_path / "one", recipe=RECIPE + "lora: null\n", resume=True)
    with pytest.raises(RunError, match="leave it out"):
        RunDir.create(tmp_path / "two", recipe=RECIPE, resume=True)
    assert contents(tmp_path) == before
    assert not (tmp_path / "two").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="is a file"):
        RunDir.create(tmp_path / "run", recipe=RECIPE)
    with pytest.raises(RunError, match="writable"):
        RunDir.create(tmp_path / "run" / "below", recipe=RECIPE)


def test_opening_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "run", recipe=RECIPE)
    assert RunDir.open(tmp_path / "run").recipe == RECIPE
    with pytest.raises(RunError, match=r"holds recipe.yaml"):
        RunDir.open(tmp_path)


def test_records_are_read_while_the_run_goes_on(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    assert list(run.records()) == []
    with run.append_records() as writer:
        writer.write_record(RECORD)
        assert list(run.records()) == [RECORD]


def test_a_torn_last_line_is_not_read_and_is_cut_before_the_next_is_written(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    second = replace(RECORD, id="second")
    with run.append_records() as writer:
        writer.write_record(RECORD)
        writer.write_record(second)
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # only the newline is missing
    assert list(run.records()) == [RECORD]
    path.write_bytes(whole[:-100])
    assert list(run.records()) == [RECORD]
    with run.append_records() as writer:
        writer.write_record(second)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_a_torn_line_of_any_length_is_cut_even_where_it_is_the_only_one(tmp_path: Path, size: int) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    path = tmp_path / "metrics.jsonl"
    for kept in (b"", b'{"step":1}\n'):
        path.write_bytes(kept + b"x" * size)
        run.append_metrics().close()
        assert path.read_bytes() == kept


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(RunError, match="line 2 of"):
        list(run.metrics())


def test_a_line_that_is_no_record_is_an_error_with_its_number(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    (tmp_path / "records.jsonl").write_text('{"id": "a"}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"records.jsonl:1: "):
        list(run.records())


def test_of_records_repeated_after_a_resume_the_last_counts(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    first, again = replace(RECORD, id="a", advantage=1.0), replace(RECORD, id="a", advantage=2.0)
    other = replace(RECORD, id="b")
    with run.append_records() as writer:
        for record in (first, other, again):
            writer.write_record(record)
    assert list(run.records()) == [other, again]


def test_a_metric_that_is_not_finite_is_null(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    with run.append_metrics() as writer:
        writer.write_metrics({"step": 1, "loss": float("nan"), "parts": {"a": float("inf"), "b": 0.5}})
    assert list(run.metrics()) == [{"step": 1, "loss": None, "parts": {"a": None, "b": 0.5}}]


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no advisory locks")
    run = RunDir.create(tmp_path, recipe=RECIPE)
    first = run.append_records()
    with pytest.raises(RunError, match="only one process at a time writes"):
        run.append_records()
    first.close()
    run.append_records().close()


def test_checkpoints_are_listed_by_step_and_staged_ones_are_not(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=RECIPE)
    assert run.checkpoints() == []
    for step in (100, 20):
        run.checkpoint_path(step).mkdir()
    (tmp_path / "checkpoints" / ".staged-step-000120").mkdir()
    (tmp_path / "checkpoints" / "step-000130.partial").mkdir()
    assert [path.name for path in run.checkpoints()] == ["step-000020", "step-000100"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    write_atomically(path, "new")
    assert contents(tmp_path) == {"a.txt": b"new"}


KINDS = {
    "train": "model: m\ntrain: {seed: 1}\n",
    "sft": "model: m\nsft: {seed: 1}\n",
    "evaluate": "evaluate: {seed: 1}\n",
    "probe": "probe: {seed: 1, evaluate: {seed: 1}}\n",
    "ways": "ways: [grit]\ntrain: {seed: 1}\nsft: {seed: 1}\n",
}
TRAININGS = ("train", "sft")


def refusal(folder: Path, recipe: str, *, resume: bool = False) -> str:
    with pytest.raises(RunError) as caught:
        RunDir.check(folder, recipe=recipe, resume=resume)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_folder_is_answered_with_options_that_the_command_has(kind: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("", encoding="utf-8")
    assert refusal(tmp_path / "mine", KINDS[kind]).endswith("holds notes.txt; choose another --out")
    (tmp_path / "mine" / "recipe.yaml").write_bytes(b"\xff of another program")
    assert "holds notes.txt; choose another --out" in refusal(tmp_path / "mine", KINDS[kind])
    run = RunDir.create(tmp_path / "run", recipe=KINDS[kind]).path
    said = refusal(run, KINDS[kind].replace("seed: 1", "seed: 2") + "more: 1\n", resume=True)
    assert "its own recipe" in said
    assert ("--resume-anyway" in said) == (kind in TRAININGS)
    assert said.endswith(f"use the settings in {run / 'recipe.yaml'}, or another --out") or kind in TRAININGS
    told = refusal(run, KINDS[kind])
    without = " without a checkpoint" if kind in TRAININGS else ""
    assert f"{run} holds a run{without}; choose another --out" in told
    assert ("or --resume to start the run in it" in told) == (kind in TRAININGS)
    RunDir.open(run).checkpoint_path(1).mkdir()
    told = refusal(run, KINDS[kind])
    assert f"{run} holds a run; choose another --out" in told
    assert ("or --resume to resume the run in it" in told) == (kind in TRAININGS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_another_kind_is_refused_without_its_keys(kind: str, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, recipe=KINDS[kind]).path
    for other in KINDS.keys() - {kind}:
        assert refusal(run, KINDS[other], resume=True).endswith(
            f"{run} holds a run of another command; choose another --out"
        )
        assert refusal(run, KINDS[other]).endswith("; choose another --out")


def test_of_many_differences_the_first_eight_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    keys = [f"k{number:02}" for number in range(11)]
    RunDir.create(tmp_path, recipe="".join(f"{key}: 1\n" for key in keys))
    said = refusal(tmp_path, "".join(f"{key}: 2\n" for key in keys), resume=True)
    assert "k07: 1 then, 2 now and 3 more)" in said
    assert "k08" not in said


def test_of_data_sets_the_keys_that_differ_are_told(tmp_path: Path) -> None:
    RunDir.create(tmp_path, recipe="data: {train: [{file: a.jsonl, hub: null}, {name: b}]}\n")
    said = refusal(tmp_path, "data: {train: [{file: c.jsonl, hub: null}, {name: b}]}\n", resume=True)
    assert '(data.train.0.file: "a.jsonl" then, "c.jsonl" now)' in said
