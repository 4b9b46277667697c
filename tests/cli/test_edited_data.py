"""Data that changed under a run: every command refuses it or tells it, whatever was edited; none is silent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_random
import yaml
from edited_data import (
    ANNOTATION,
    ANSWER,
    EDITS,
    NUM_ROWS,
    SAID,
    command,
    data_set,
    evaluation,
    logged,
    rows_of,
    save,
)
from endpoint_stub import Said, Stub, endpoint_stub

from opengrit.runs.folder import RunDir


@pytest.fixture
def served() -> Iterator[Stub]:
    with endpoint_stub(lambda _: Said(ANSWER)) as stub:
        yield stub


# -- eval -------------------------------------------------------------------------------------------------------------


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
    assert "--judge-again needs an existing evaluation" in command(*again, "--judge-again", code=2)
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


@pytest.mark.parametrize("edit", ["delete", "reorder", "answer"])
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
    assert "restore the old" in said
    shutil.copyfile(tmp_path / "kept.jsonl", path)
    caplog.clear()
    command(*again)
    assert "did not note its data" in logged(caplog)
    caplog.clear()
    command(*again)
    assert not caplog.records  # said once: its data is noted now


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
        assert re.search(r"1 of \S+ have changed \(\S+1.png\); restore the old ones", said)
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


@pytest.mark.parametrize("edit", ["insert", "answer", "picture", "name"])
def test_a_report_tells(edit: str, tmp_path: Path, served: Stub, caplog) -> None:
    path = data_set(tmp_path / "data")
    command(*evaluation(path, served))
    EDITS[edit](path)
    page = tmp_path / "report.html"
    with caplog.at_level("WARNING", logger="opengrit"):
        command("report", path.parent / "run", "--out", page)
    shown = r"have changed since they were asked about \(\S+1.png\)" if edit == "picture" else SAID[edit]
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


# -- ask --------------------------------------------------------------------------------------------------------------

SAID_BY_ASK = {
    "insert": r"note: questions were added between those in \S+: 'new' asked: 1 ",
    "delete": r"note: \S+ has answers to questions that this command does not ask: 'r1'",
    "reorder": r"note: the questions are in another order than their answers in \S+, from 'r1' on|from 'r2' on",
    "answer": r"note: keys that ask does not read have changed: 'r1'",
    "question": r"'r1' was another question in line 2 of \S+; choose another name",
    "box": r"note: keys that ask does not read have changed: 'r1'",
    "picture": r"\S+1.png of 'r1' has changed since line 2 of \S+; restore the old picture",
    "name": r"note: the picture has another name but the same content: 'r1'",
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
        (["--model", "other"], "line 1 of .* is by toy behind an endpoint and the command asks other behind an endpoint"),
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
    assert re.search(
        r"by the folder model \(SHA-256 \w+\) and the command asks the folder \S+/model \(SHA-256", said
    )
    assert len(Path("answers.jsonl").read_text().splitlines()) == 3
    # A file of an earlier version has the models' names alone.
    lines = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    save(Path("old.jsonl"), [{k: v for k, v in line.items() if k != "asked"} for line in lines[:2]])
    again[again.index("answers.jsonl")] = "old.jsonl"
    assert "by 'model' and the command asks the folder" in command(*again, "--model", "copy", code=2)
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
    # A table that was interrupted while it judged again is not taken for one that has.
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


# -- interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", ["insert", "delete", "reorder"])
def test_an_evaluation_that_was_killed_asks_each_question_once_and_none_of_other_rows(
    edit: str, tmp_path: Path, served: Stub
) -> None:
    path = data_set(tmp_path / "data")
    again = evaluation(path, served)
    command(*again)
    records = path.parent / "run" / "records.jsonl"
    whole = records.read_bytes()
    lines = whole.splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:2]) + lines[2][:50])  # as a kill leaves it
    shutil.copyfile(path, tmp_path / "kept.jsonl")
    EDITS[edit](path)
    command(*again, code=2)
    shutil.copyfile(tmp_path / "kept.jsonl", path)
    command(*again)
    assert len(served.requests) == NUM_ROWS + 2
    assert records.read_bytes() == whole


@pytest.mark.parametrize("line", ["garbage", "[1]", "{}", '{"id": "rows:1#0"}', "", "\x00\x00"])
def test_a_line_of_garbage_in_an_evaluation_is_named_and_its_remedy_works(
    line: str, tmp_path: Path, served: Stub
) -> None:
    path = data_set(tmp_path / "data")
    again = evaluation(path, served)
    command(*again)
    records = path.parent / "run" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join([f"{line}\n", *lines[:1], *lines[2:]]))
    said = command(*again, code=2)
    assert re.search(r"line 1 of \S+records.jsonl|records.jsonl:1: ", said)
    assert "remove that line" in said
    records.write_text("".join([*lines[:1], *lines[2:]]))
    command(*again)
    assert len(served.requests) == NUM_ROWS + 1
    assert sorted(records.read_text().splitlines(keepends=True)) == sorted(lines)
