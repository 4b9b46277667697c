"""Data that changed under a run: every command refuses it or tells it, whatever was edited; none is silent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
import yaml
from edited_data import EDITS, NUM_ROWS, data_set, rows_of, save
from endpoint_stub import Said, Stub, endpoint_stub
from small_runs import small_recipe
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.types import Completion, Finish
from opengrit.grounding.frames import frame_for
from opengrit.grounding.parsing import parse
from opengrit.runs.folder import RunDir

ANSWER = '<think>{"bbox_2d": [14, 28, 56, 84]}</think><rethink>so</rethink><answer>1</answer>'
# What a message says of each edit.
SAID = {
    "insert": r"row 2 \(rows:2\): inserted",
    "delete": r"row 2 then \(rows:2\): deleted",
    "reorder": r"row [23] \(rows:[23]\): was row [23]",
    "answer": r"row 2 \(rows:2\): answer changed, '1' then, '7' now",
    "question": r"row 2 \(rows:2\): question changed",
    "box": r"row 2 \(rows:2\): boxes changed",
    "picture": r"row 2 \(rows:2\): picture exchanged \S+1.png",
    "name": r"row 2 \(rows:2\): picture was \S+1.png, and is \S+renamed.png with the same content",
}
ANNOTATION = ("answer", "box")


def told(result) -> str:
    return " ".join(result.output.split())


def command(*words: object, code: int = 0) -> str:
    """All that a command says; it must end with `code`."""
    result = CliRunner().invoke(app, list(map(str, words)), env={"OPENAI_API_KEY": "none"})
    assert result.exit_code == code, (told(result), result.exception)
    return told(result)


@pytest.fixture
def served() -> Iterator[Stub]:
    with endpoint_stub(lambda _: Said(ANSWER)) as stub:
        yield stub


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(record.getMessage() for record in caplog.records)


# -- eval -------------------------------------------------------------------------------------------------------------


def evaluation(path: Path, stub: Stub, *more: object) -> list[object]:
    asked = ["eval", "--endpoint", stub.url, "--model", "toy", "--frame", "qwen2_5_vl", "--quiet"]
    return [*asked, "--data", path, "--images", path.parent / "pictures", "--out", path.parent / "run", *more]


@pytest.mark.parametrize("edit", EDITS)
def test_an_evaluation_notices(edit: str, tmp_path: Path, served: Stub, caplog) -> None:
    path = data_set(tmp_path / "data")
    again = evaluation(path, served)
    command(*again)
    before = (path.parent / "run" / "records.jsonl").read_bytes()
    shutil.copytree(path.parent, tmp_path / "kept")
    EDITS[edit](path)
    with caplog.at_level("WARNING", logger="opengrit"):
        said = command(*again, code=0 if edit == "name" else 2)
    assert re.search(SAID[edit], logged(caplog) if edit == "name" else said), said
    assert len(served.requests) == NUM_ROWS  # nothing was asked twice
    if edit == "name":
        assert [r.example.image for r in RunDir.open(path.parent / "run").records()][-1].endswith(
            "renamed.png"
        )
        caplog.clear()
        command(*again)
        assert not caplog.records  # told once
        return
    assert (path.parent / "run" / "records.jsonl").read_bytes() == before
    assert ("--judge-again" in said) == (edit in ANNOTATION)
    # Both ways on work: another folder, and the old data.
    command(*evaluation(path, served, "--out", path.parent / "new"))
    for name in ("rows.jsonl", "pictures/1.png"):
        shutil.copyfile(tmp_path / "kept" / name, path.parent / name)
    command(*again)
    assert (path.parent / "run" / "records.jsonl").read_bytes() == before


def test_a_corrected_annotation_is_judged_again_on_request_and_nothing_is_asked(
    tmp_path: Path, served: Stub
) -> None:
    path = data_set(tmp_path / "data")
    save(path, [row | {"answer": 1} for row in rows_of(path)])
    again = evaluation(path, served)
    assert "--judge-again judges the answers of an evaluation that is there" in command(
        *again, "--judge-again", code=2
    )
    command(*again)
    run = RunDir.open(path.parent / "run")
    before = {record.id: record for record in run.records()}
    assert all(record.verdict.correct for record in before.values())
    EDITS["answer"](path)
    EDITS["box"](path)
    command(*again, code=2)
    command(*again, "--judge-again")
    after = {record.id: record for record in run.records()}
    assert len(served.requests) == NUM_ROWS
    assert [name for name in after if after[name] != before[name]] == ["rows:2#0"]
    changed = after["rows:2#0"]
    assert (changed.verdict.correct, changed.example.answer) == (False, "7")
    assert changed.completion == before["rows:2#0"].completion
    assert len(changed.example.boxes) == 1
    written = (run.path / "records.jsonl").read_bytes()
    command(*again)  # these are its rows now
    command(*again, "--judge-again")  # and judging once more changes nothing
    assert (run.path / "records.jsonl").read_bytes() == written
    # What is asked is never taken for another annotation.
    EDITS["question"](path)
    assert "question changed" in command(*again, "--judge-again", code=2)


def test_judging_again_that_was_broken_off_is_not_taken_for_done(tmp_path: Path, served: Stub) -> None:
    path = data_set(tmp_path / "data")
    again = evaluation(path, served)
    command(*again)
    records = path.parent / "run" / "records.jsonl"
    before = records.read_bytes()
    EDITS["answer"](path)
    command(*again, "--judge-again")
    records.write_bytes(before)  # the data was noted, and no answer judged
    assert "answer changed, '1' then, '7' now" in command(*again, code=2)
    command(*again, "--judge-again")
    command(*again)


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit not in ("picture", "name", "insert")])
def test_an_evaluation_of_an_earlier_version_is_compared_with_its_records(
    edit: str, tmp_path: Path, served: Stub, caplog
) -> None:
    path = data_set(tmp_path / "data")
    again = evaluation(path, served)
    command(*again)
    (path.parent / "run" / "data.jsonl").unlink()
    shutil.copyfile(path, tmp_path / "kept.jsonl")
    EDITS[edit](path)
    with caplog.at_level("WARNING", logger="opengrit"):
        said = command(*again, code=2)
    assert "did not note its data" in logged(caplog)
    assert "bring the old" in said
    shutil.copyfile(tmp_path / "kept.jsonl", path)
    caplog.clear()
    command(*again)
    assert "did not note its data" in logged(caplog)
    caplog.clear()
    command(*again)
    assert not caplog.records  # said once: its data is noted now


# -- train and sft ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, recipes that learn from it, and what two steps of each gave, without its final model."""
    folder = tmp_path_factory.mktemp("trained")
    path = data_set(folder / "data")
    recipe = yaml.safe_load(small_recipe(folder, max_steps=2).read_text())
    source = {"file": str(path), "images": str(path.parent / "pictures")}
    grpo = recipe | {"data": {"train": [source], "eval": [source]}}
    sft = {"model": recipe["model"], "data": {"train": [source]}, "strategy": "grounded"}
    sft["sft"] = {
        "max_steps": 2,
        "rows_per_step": 2,
        "per_device_train_batch_size": 2,
        "save_steps": 1,
        "bf16": False,
    }
    for name, wanted in (("train", grpo), ("sft", sft)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(wanted))
        command(name, folder / f"{name}.yaml", "--out", folder / name)
        shutil.move(folder / name / "final", folder / f"{name}-final")
    shutil.copytree(path.parent, folder / "kept")
    return folder


@pytest.fixture
def edited(trained: Path) -> Iterator[Path]:
    """The rows, as they were before and as they are again after a test."""
    yield trained / "data" / "rows.jsonl"
    shutil.rmtree(trained / "data")
    shutil.copytree(trained / "kept", trained / "data")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("way", ["train", "sft"])
def test_a_training_notices(way: str, edit: str, trained: Path, edited: Path, tmp_path: Path, caplog) -> None:
    out = shutil.copytree(trained / way, tmp_path / "run")
    EDITS[edit](edited)
    again = [way, trained / f"{way}.yaml", "--out", out, "--resume"]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    if edit == "name":
        with caplog.at_level("WARNING", logger="opengrit"):
            command(*again)
        assert re.search(f"data train: {SAID[edit]}", logged(caplog))
        assert (out / "final" / "model.safetensors").read_bytes() == (
            trained / f"{way}-final" / "model.safetensors"
        ).read_bytes()
        return
    said = command(*again, code=2)
    assert re.search(f"data train: {SAID[edit]}", said), said
    assert "--resume-anyway to resume all the same" in said
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    if way == "train":
        assert re.search(f"data eval {re.escape(str(edited))}: {SAID[edit]}", said)


def test_a_training_continues_over_edited_data_when_it_is_told_to_and_says_so(
    trained: Path, edited: Path, tmp_path: Path, caplog
) -> None:
    out = shutil.copytree(trained / "train", tmp_path / "run")
    EDITS["answer"](edited)
    again = ["train", trained / "train.yaml", "--out", out]
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume-anyway")
    assert re.search(f"resumed anyway: data train: {SAID['answer']}", logged(caplog))
    noted = json.loads((out / "environment.2.json").read_text())["resumed_anyway"]
    assert any(re.search(f"data train: {SAID['answer']}", one) for one in noted)
    # From here on these are the run's rows.
    shutil.rmtree(out / "final")
    command(*again, "--resume")
    caplog.clear()
    EDITS["box"](edited)
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume")  # it is finished: nothing is trained, and the change is told
    assert re.search(f"was trained on other data: data train: {SAID['box']}", logged(caplog))


def test_a_checkpoint_knows_its_data_where_the_file_is_gone(
    trained: Path, edited: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(trained / "sft", tmp_path / "run")
    (out / "data.jsonl").unlink()
    EDITS["picture"](edited)
    said = command("sft", trained / "sft.yaml", "--out", out, "--resume", code=2)
    assert "data train: rows or pictures are others than when the checkpoint was written" in said


def test_a_checkpoint_names_no_folder_of_this_machine_in_what_it_says_of_its_data(trained: Path) -> None:
    for sidecar in trained.glob("*/checkpoints/*/checkpoint.json"):
        assert str(trained) not in json.dumps(list(json.loads(sidecar.read_text())["data"].values()))


@pytest.mark.parametrize(
    ("lost", "meaning"),
    [
        (("optimizer.pt",), "optimizer.pt is missing: the optimizer's running means are gone"),
        (("scheduler.pt",), "scheduler.pt is missing: .*schedule of the learning rate start anew"),
        (("rng_state.pth",), "rng_state.pth is missing: random numbers start from the seed"),
        (("optimizer.pt", "scheduler.pt", "checkpoint.json"), "optimizer.pt is missing: .*scheduler.pt is missing: "),
    ],
)  # fmt: skip
def test_a_resume_without_a_part_of_the_state_says_which_and_what_that_means(
    lost: tuple[str, ...], meaning: str, trained: Path, tmp_path: Path, caplog
) -> None:
    out = shutil.copytree(trained / "sft", tmp_path / "run")
    shutil.rmtree(out / "checkpoints" / "step-000002")
    for name in lost:
        (out / "checkpoints" / "step-000001" / name).unlink()
    again = ["sft", trained / "sft.yaml", "--out", out]
    said = command(*again, "--resume", code=2)
    assert all(name in said for name in lost[:1])
    assert "--resume-anyway" in said
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume-anyway")
    assert re.search(f"resumed anyway: {meaning}", logged(caplog))
    assert (out / "final").is_dir()


@pytest.mark.parametrize("line", ["garbage", "[1]", "", "\x00\x00"])
@pytest.mark.parametrize("way", ["train", "sft"])
def test_a_line_of_garbage_stops_a_resume(way: str, line: str, trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained / way, tmp_path / "run")
    name = "records.jsonl" if way == "train" else "metrics.jsonl"
    first, rest = (out / name).read_text().split("\n", 1)
    (out / name).write_text(f"{first}\n{line}\n{rest}")
    again = [way, trained / f"{way}.yaml", "--out", out, "--resume"]
    said = command(*again, code=2)
    assert re.search(rf"line 2 of \S+{name} is not.*remove that line", said)
    (out / name).write_text(f"{first}\n{rest}")
    if line == "garbage":
        command(*again)


# -- probe and report -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
def test_probes_notice(edit: str, tmp_path: Path, served: Stub, caplog) -> None:
    path = data_set(tmp_path / "data")
    command(*evaluation(path, served))
    run, out = path.parent / "run", tmp_path / "probes"
    again = ["probe", run, "--out", out, "--probe", "occlude", "--quiet"]
    EDITS[edit](path)
    if edit == "picture":
        said = command(*again, code=2)
        assert re.search(
            r"1 of those of \S+ have another content now \(\S+1.png\); bring the old ones back", said
        )
        assert not out.exists()
        return
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again)
    assert re.search(SAID[edit], logged(caplog)), logged(caplog)
    assert ("1 of 4 pictures" in logged(caplog)) == (edit == "name")
    if edit != "name":
        return
    # The remedy: the folder that holds the picture, and the same command asks what is missing.
    (tmp_path / "found").mkdir()
    shutil.copyfile(path.parent / "pictures" / "renamed.png", tmp_path / "found" / "1.png")
    asked = len(served.requests)
    command(*again, "--images", tmp_path / "found")
    assert len(served.requests) == asked + 1
    assert not any(record.failure for record in RunDir.open(out).records())


@pytest.mark.parametrize("edit", EDITS)
def test_a_report_tells(edit: str, tmp_path: Path, served: Stub, caplog) -> None:
    path = data_set(tmp_path / "data")
    command(*evaluation(path, served))
    EDITS[edit](path)
    page = tmp_path / "report.html"
    with caplog.at_level("WARNING", logger="opengrit"):
        command("report", path.parent / "run", "--out", page)
    shown = r"have another content than was asked about \(\S+1.png\)" if edit == "picture" else SAID[edit]
    assert re.search(shown, logged(caplog)), logged(caplog)
    assert "changed since" in page.read_text()


def test_probes_follow_a_correction_that_was_judged_again(tmp_path: Path, served: Stub) -> None:
    path = data_set(tmp_path / "data")
    save(path, [row | {"answer": 1} for row in rows_of(path)])
    command(*evaluation(path, served))
    probes = ["probe", path.parent / "run", "--out", tmp_path / "probes", "--quiet"]
    command(*probes)
    asked = len(served.requests)
    EDITS["answer"](path)
    command(*evaluation(path, served, "--judge-again"))
    command(*probes)
    assert len(served.requests) == asked
    found = {record.id: record.verdict.correct for record in RunDir.open(tmp_path / "probes").records()}
    assert len(found) == 4 * NUM_ROWS
    assert {name for name, correct in found.items() if not correct} == {
        f"{kind}/rows:2#0" for kind in ("asked", "occlude", "keep", "shuffle")
    }


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
    assert "did not note whether that was a folder or a hub id" in said
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
    assert "continues with the model it asked" in said
    assert said.count("SHA-256") == 2
    assert (run / "records.jsonl").read_bytes() == before
    shutil.rmtree("runs/mine/final")
    shutil.move(tmp_path / "kept", "runs/mine/final")
    command(*asked)


# -- ask --------------------------------------------------------------------------------------------------------------

SAID_BY_ASK = {
    "insert": r"note: questions are new between those in \S+: 'new' asked: 1 ",
    "delete": r"note: \S+ has answers to questions that are not asked now: 'r1'",
    "reorder": r"note: the questions are in another order than their answers in \S+, from 'r1' on|from 'r2' on",
    "answer": r"note: keys that asking does not read have other values now: 'r1'",
    "question": r"'r1' was another one in line 2 of \S+; choose another name",
    "box": r"note: keys that asking does not read have other values now: 'r1'",
    "picture": r"\S+1.png of 'r1' has another content than in line 2 of \S+; bring the old picture back",
    "name": r"note: the picture has another name and the same content: 'r1'",
}


@pytest.mark.parametrize("edit", EDITS)
def test_asking_notices(edit: str, tmp_path: Path, served: Stub) -> None:
    path = data_set(tmp_path / "data")
    again = [
        "ask",
        "--batch",
        path,
        "--images",
        path.parent / "pictures",
        "--out",
        tmp_path / "answers.jsonl",
    ]
    again += ["--endpoint", served.url, "--frame", "qwen2_5_vl"]
    assert "note:" not in command(*again) + command(*again)
    before = (tmp_path / "answers.jsonl").read_bytes()
    EDITS[edit](path)
    said = command(*again, code=2 if edit in ("question", "picture") else 0)
    assert re.search(SAID_BY_ASK[edit], said), said
    assert len(served.requests) == NUM_ROWS + (edit == "insert")
    assert (tmp_path / "answers.jsonl").read_bytes().startswith(before)
    assert str(tmp_path) not in before.decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--temperature", 0.5], "temperature was 0.0 in line 1 of .* and is 0.5 now"),
        (["--strategy", "direct"], "strategy was 'grounded' in line 1 of .* and is 'direct' now"),
        (["--max-new-tokens", 9], "max_new_tokens was 1000"),
        (["--seed", 9], "seed was 0"),
        (["--model", "other"], "line 1 of .* is by toy behind an endpoint and asked is other behind an endpoint"),
    ],
)  # fmt: skip
def test_answers_of_two_kinds_are_not_mixed(change: list, message: str, tmp_path: Path) -> None:
    path = data_set(tmp_path / "data")
    with endpoint_stub(lambda _: Said(ANSWER), models=("toy", "other")) as stub:
        again = [
            "ask",
            "--batch",
            path,
            "--images",
            path.parent / "pictures",
            "--out",
            tmp_path / "answers.jsonl",
        ]
        again += ["--endpoint", stub.url, "--frame", "qwen2_5_vl"]
        command(*again, "--model", "toy")
        save(path, [*rows_of(path), rows_of(path)[0] | {"id": "one more"}])
        before = (tmp_path / "answers.jsonl").read_bytes()
        said = command(*again, *(change if "--model" in change else ["--model", "toy", *change]), code=2)
        assert re.search(message, said), said
        assert len(stub.requests) == NUM_ROWS
    assert (tmp_path / "answers.jsonl").read_bytes() == before


def test_a_models_answers_are_told_from_those_of_another_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_set(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    tiny_random.save(tiny_random.qwen(), Path("model"))
    shutil.copytree("model", "copy")
    again = ["ask", "--batch", path, "--images", path.parent / "pictures", "--out", "answers.jsonl"]
    again += ["--max-new-tokens", 4]
    save(path, (rows := rows_of(path))[:2])
    command(*again, "--model", "model")
    save(path, rows[:3])
    command(*again, "--model", tmp_path / "copy")  # the same model in another place
    shutil.rmtree("model")
    tiny_random.save(tiny_random.qwen(seed=5), Path("model"))
    save(path, rows)
    said = command(*again, "--model", "model", code=2)
    assert re.search(r"by the folder model \(SHA-256 \w+\) and asked is the folder \S+/model \(SHA-256", said)
    assert len(Path("answers.jsonl").read_text().splitlines()) == 3
    # A file of an earlier version has the models' names alone.
    lines = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    save(Path("old.jsonl"), [{k: v for k, v in line.items() if k != "asked"} for line in lines[:2]])
    again[again.index("answers.jsonl")] = "old.jsonl"
    assert "by 'model' and asked is the folder" in command(*again, "--model", "copy", code=2)
    assert "an earlier version wrote 2 of the answers" in command(*again, "--model", "model")


# -- table ------------------------------------------------------------------------------------------------------------


def table(path: Path, stub: Stub, *more: object) -> list[object]:
    recipe = {
        "models": [{"name": "toy", "endpoint": {"url": stub.url, "frame": "qwen2_5_vl"}}],
        "data": [{"file": str(path), "images": str(path.parent / "pictures")}],
        "ways": ["direct", "grounded"],
        "seeds": [0],
    }
    (path.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["table", path.parent / "recipe.yaml", "--out", path.parent / "table", "--quiet", *more]


@pytest.mark.parametrize("edit", EDITS)
def test_a_table_notices(edit: str, tmp_path: Path, served: Stub, caplog) -> None:
    path = data_set(tmp_path / "data")
    command(*table(path, served))
    before = {file: file.read_bytes() for file in (path.parent / "table").rglob("*") if file.is_file()}
    EDITS[edit](path)
    with caplog.at_level("WARNING", logger="opengrit"):
        said = command(*table(path, served), code=0 if edit == "name" else 2)
    assert re.search(f"data asked: {SAID[edit]}", logged(caplog) if edit == "name" else said), said
    assert len(served.requests) == 2 * NUM_ROWS
    if edit == "name":
        return
    assert {file: file.read_bytes() for file in before} == before
    assert ("--judge-again" in said) == (edit in ANNOTATION)
    if edit != "answer":
        return
    # A table that was broken off while it judged again is not taken for one that has.
    command(*table(path, served, "--judge-again"))
    assert len(served.requests) == 2 * NUM_ROWS
    corrected = (path.parent / "table" / "table.csv").read_bytes()
    records = sorted((path.parent / "table").glob("runs/*/*/*/eval/records.jsonl"))[1]
    whole = records.read_bytes()
    records.write_bytes(before[records])
    assert "--judge-again" in command(*table(path, served), code=2)
    command(*table(path, served, "--judge-again"))
    assert sorted(records.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert (path.parent / "table" / "table.csv").read_bytes() == corrected
    command(*table(path, served))


@pytest.mark.parametrize("edit", ["answer", "picture"])
def test_a_table_notices_that_what_it_learned_from_changed(
    edit: str, trained: Path, edited: Path, tmp_path: Path
) -> None:
    source = {"file": str(edited), "images": str(edited.parent / "pictures")}
    other = data_set(tmp_path / "asked")
    sft = yaml.safe_load((trained / "sft.yaml").read_text())["sft"]
    recipe = {
        "models": [str(trained / "base")], "data": [{"file": str(other), "images": str(other.parent / "pictures")}],
        "train_data": [source], "ways": ["sft"], "seeds": [0], "sft": sft | {"max_steps": 1},
        "eval": {"max_completion_length": 4},
    }  # fmt: skip
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(recipe))
    again = ["table", tmp_path / "table.yaml", "--out", tmp_path / "table", "--quiet"]
    command(*again)
    EDITS[edit](edited)
    said = command(*again, code=2)
    assert re.search(f"data train: {SAID[edit]}", said)
    assert "--judge-again" not in said
