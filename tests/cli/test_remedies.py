"""What a message says to do, done as told, leads on: each of the errors that a new user meets first."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.data import load_examples
from opengrit.data.missing import folder_near
from opengrit.recipes.training_recipe import load_recipe

README = Path(__file__).parents[2] / "README.md"
ROWS = 12
# A recipe as one writes it: a step of twenty questions, ten completions at once.
RECIPE = """model: tiny-qwen2.5-vl
data:
  train: [mine.jsonl]
train:
  max_steps: 1
  num_generations: 2
  questions_per_step: 20
  per_device_train_batch_size: 10
  max_completion_length: 4
  bf16: false
  gradient_checkpointing: false
  beta: 0.0
  save_steps: null
  eval_steps: null
"""
FITS = ("--set", "train.questions_per_step=4", "--set", "train.per_device_train_batch_size=8")
SOURCE = "{file: mine.jsonl, images: photos}"


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of somebody with photos/, mine.jsonl about them, and my.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("runs").mkdir()
    for i in range(ROWS):
        Image.new("RGB", (64, 48), (20 * i, 90, 200)).save(f"photos/{i}.png")
    write_rows("mine.jsonl", range(ROWS), sized=False)
    Path("my.yaml").write_text(RECIPE, encoding="utf-8")


def write_rows(name: str, pictures: Any, *, sized: bool) -> None:
    size = {"width": 64, "height": 48} if sized else {}
    rows = [
        {"question": f"How many dogs, {i}?", "answer": i % 5, "image": f"{i}.png"} | size for i in pictures
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def told(pattern: str, message: str) -> str:
    """What a message says to write, set or give."""
    found = re.search(pattern, message)
    assert found is not None, message
    return found[1]


def findings(*words: str, code: int) -> dict[str, dict[str, str]]:
    found = json.loads(
        run(
            "doctor",
            "my.yaml",
            *FITS,
            "--set",
            "train.max_completion_length=160",
            "--quick",
            "--json",
            *words,
            code=code,
        )
    )["findings"]
    return {one["name"]: one for one in found}


def edit(old: str, new: str) -> None:
    text = Path("my.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    Path("my.yaml").write_text(text.replace(old, new), encoding="utf-8")


def next_stage() -> None:
    """The training gets to its model, which is none: what stood in its way before is gone."""
    said = run("train", "my.yaml", *FITS, "--set", "model=tiny-qwen25-vl", "--out", "runs/next", code=2)
    assert "tiny-qwen25-vl" in said


# A forgotten picture folder.


@pytest.mark.parametrize("sized", [True, False])
def test_data_check_says_where_the_pictures_are(sized: bool) -> None:
    write_rows("mine.jsonl", range(ROWS), sized=sized)
    said = run("data", "check", "mine.jsonl", code=0 if sized else 2)
    assert said.count("give --images") == 1
    done = run("data", "check", "mine.jsonl", *shlex.split(told(r"give (--images \S+)", said)))
    assert "missing" not in done
    assert "not checked" not in done.split("Leaks:")[0]


def test_the_doctor_says_where_the_pictures_are_and_estimates_nothing_without_them() -> None:
    found = findings(code=1)
    assert f"{ROWS} of {ROWS} pictures of mine.jsonl are not in ." in found["pictures"]["found"]
    assert found["memory"]["level"] == "skipped"
    edit("mine.jsonl", told(r"in a recipe: (\{.*\})\)", found["pictures"]["remedy"]))
    after = findings(code=0)
    assert "pictures" not in after
    assert after["memory"]["level"] == "ok"


def test_a_training_says_once_where_the_pictures_are() -> None:
    said = run("train", "my.yaml", *FITS, "--out", "runs/one", code=2)
    assert said.count("\n") == 1
    assert f"{ROWS} of {ROWS} named in mine.jsonl do not" in said
    edit("mine.jsonl", told(r"in a recipe: (\{.*\})\)", said))
    next_stage()


def test_an_evaluation_says_where_the_pictures_are() -> None:
    command = (
        "eval",
        "--model",
        "tiny-qwen2.5-vl",
        "--data",
        "mine.jsonl",
        "--max-new-tokens",
        "4",
        "--limit",
        "1",
        "--out",
        "runs/e",
    )
    said = run(*command, code=2)
    assert "records:" in run(*command, *shlex.split(told(r"give (--images \S+)", said)))


def test_a_picture_folder_of_another_name_is_found_beside_the_file() -> None:
    Path("set").mkdir()
    Path("mine.jsonl").rename("set/mine.jsonl")
    Path("photos").rename("set/photos")
    for wrong in ("photos", "set/fotos"):
        said = run("data", "check", "set/mine.jsonl", "--images", wrong, code=2)
        assert "missing" not in run(
            "data", "check", "set/mine.jsonl", *shlex.split(told(r"give (--images \S+)", said))
        )


def test_looking_for_pictures_never_fails(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    assert folder_near("mine.jsonl", ["n" * 5000, "a\0b"]) is None
    assert folder_near("mine.jsonl", []) is None
    assert folder_near("nowhere/mine.jsonl", ["0.png"]) is None
    os.symlink("loop", "loop")
    assert folder_near("mine.jsonl", [f"{i}.png" for i in range(ROWS)]) == "photos"
    assert folder_near("mine.jsonl", ["0.png", "none.png"]) is None  # some are not all


def test_what_was_never_fetched_says_how_it_is() -> None:
    said = run("data", "check", "data/vsr/vsr_val.jsonl", code=2)
    assert told(r"fetch it: (.*)", said) == "opengrit data get vsr --pictures"
    said = run("eval", "--model", "tiny-qwen2.5-vl", "--data", "sets/vsr", "--out", "runs/v", code=2)
    assert told(r"fetch it: (.*)", said) == "opengrit data get vsr --pictures --out sets"
    assert "did you mean mine.jsonl?" in run("data", "check", "mien.jsonl", code=2)


# A recipe written by hand.


def test_a_picture_folder_under_data_goes_to_its_file() -> None:
    edit("[mine.jsonl]\n", "[mine.jsonl]\n  images: photos\n")
    said = run("train", "my.yaml", *FITS, "--out", "runs/one", code=2)
    assert "my.yaml:4: data.images is not a key of a recipe" in said
    edit("  images: photos\n", "")  # take it out
    edit("train: [mine.jsonl]", told(r"remove it and write (.*)", said))
    next_stage()


def test_a_mapping_becomes_the_list_that_is_expected() -> None:
    edit("[mine.jsonl]", SOURCE)
    said = run("train", "my.yaml", *FITS, "--out", "runs/one", code=2)
    edit(f"train: {SOURCE}", told(r"must be a list, got .*; write (.*)", said))
    next_stage()


def test_both_at_once_have_one_remedy() -> None:
    edit("[mine.jsonl]\n", "{file: mine.jsonl}\n  image_dir: photos\n")
    said = run("train", "my.yaml", *FITS, "--out", "runs/one", code=2)
    assert set(re.findall(r"write (train: .*)", said)) == {f"train: [{SOURCE}]"}
    edit("  image_dir: photos\n", "")
    edit("train: {file: mine.jsonl}", f"train: [{SOURCE}]")
    next_stage()


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("lr: 1.0e-5", "learning_rate: 1.0e-5"),
        ("group_size: 4", "num_generations: 4"),
        ("batch_size: 4", "per_device_train_batch_size: 4"),
        ("max_new_tokens: 9", "max_completion_length: 9"),
        ("epochs: 3", "max_steps: 3"),
        ("learning_rat: 0.1", "learning_rate: 0.1"),
        ("wandb: true", "report_to: [wandb]"),
    ],
)
def test_a_key_of_another_name_is_told_its_name_here(written: str, right: str) -> None:
    head = f"model: tiny-qwen2.5-vl\ndata: {{train: [{SOURCE}]}}\ntrain:\n  "
    Path("my.yaml").write_text(head + written, encoding="utf-8")
    said = run("train", "my.yaml", "--out", "runs/one", code=2)
    name, written_so = told(r"did you mean (\w+)\?", said), re.search(r"\(write (.*)\)", said)
    line = written_so[1] if written_so else f"{name}:{written.partition(':')[2]}"
    assert line == right
    edit(f"  {written}", f"  {line}")
    assert load_recipe("my.yaml").data.train[0].images == "photos"


def test_equal_mistakes_are_told_once() -> None:
    Path("my.yaml").write_text(
        "model: a\ndata: {train: [{file: a.jsonl, zzz: b}, {file: c.jsonl, zzz: b}]}\ntrain: {zzz: 1, yyy: 2}\n",
        encoding="utf-8",
    )
    said = run("train", "my.yaml", "--out", "runs/one", code=2)
    assert "data.train.0.zzz, data.train.1.zzz are not keys" in said
    assert said.count("known here:") == 2  # of a data set, and of train
    Path("mine.jsonl").write_text('{"question": "How many?", "image": "0.png"}\n' * 40, encoding="utf-8")
    said = run("data", "check", "mine.jsonl", "--images", "photos", code=2)
    assert said.count("every row needs this field") == 1
    assert "(39 more lines have the same problem: 2-40)" in said


# Data that does not go with the recipe.


def test_fewer_rows_than_a_step_asks_are_told_every_size_at_once_and_it_trains() -> None:
    edit("mine.jsonl", SOURCE)
    said = run("train", "my.yaml", "--out", "runs/one", code=2)
    changes = re.findall(r"(train\.\w+): (\d+)", told(r"; (set .*), or add rows", said))
    assert changes == [("train.questions_per_step", "12"), ("train.per_device_train_batch_size", "8")]
    trained = run(
        "train",
        "my.yaml",
        "--quiet",
        "--out",
        "runs/one",
        *(w for key, value in changes for w in ("--set", f"{key}={value}")),
    )
    assert "trained model: runs/one/final" in trained


def test_a_leak_is_told_with_the_lines_to_take_out() -> None:
    write_rows("mine.jsonl", range(6), sized=True)
    write_rows("test.jsonl", [9, 1, 10, 4], sized=True)
    command = ("data", "check", "mine.jsonl", "--images", "photos", "--against", "test.jsonl")
    edit("[mine.jsonl]", f"[{SOURCE}]\n  eval: [{{file: test.jsonl, images: photos}}]")
    numbers = told(r"remove these lines from the test rows, of test: ([\d, ]+)", run(*command, code=1))
    assert numbers in findings(code=1)["leaks"]["remedy"]
    gone = {int(number) for number in numbers.split(", ")}
    assert gone == {2, 4}
    kept = [
        line
        for number, line in enumerate(Path("test.jsonl").read_text().splitlines(), start=1)
        if number not in gone
    ]
    Path("test.jsonl").write_text("\n".join(kept) + "\n")
    run(*command)
    assert findings(code=0)["leaks"]["level"] == "ok"


def test_rewards_that_apply_to_no_row_are_told_those_that_do() -> None:
    rows = [
        {"question": f"Which colour, {i}?", "answer": f"blue {i}", "image": f"{i}.png"} for i in range(ROWS)
    ]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    edit("[mine.jsonl]", f"[{SOURCE}]")
    said = run("train", "my.yaml", *FITS, "--out", "runs/one", code=2)
    assert "'box_count' needs counting rows" in said
    Path("my.yaml").write_text(
        RECIPE.replace("mine.jsonl", SOURCE) + told(r"write (rewards: \{.*\}) or", said), encoding="utf-8"
    )
    next_stage()


def test_a_spreadsheet_is_measured_on_as_it_is() -> None:
    lines = ["picture,question,answer", *(f'{i}.png,"How many dogs, {i}?",{i % 5}' for i in range(ROWS))]
    Path("sheet.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = (
        "eval",
        "--model",
        "tiny-qwen2.5-vl",
        "--data",
        "sheet.csv",
        "--max-new-tokens",
        "4",
        "--limit",
        "1",
    )
    assert "records:" in run(*command, "--images", "photos", "--out", "runs/with")
    said = run(*command, "--out", "runs/without", code=2)
    assert "records:" in run(
        *command, *shlex.split(told(r"give (--images \S+)", said)), "--out", "runs/without"
    )


def test_the_row_that_the_readme_shows_is_one_line_and_good() -> None:
    rows = re.findall(r'^ {4}(\{"question".*)$', README.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows
    Path("pasted.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    for row in map(json.loads, rows):
        picture = Path("photos") / row["image"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (row.get("width", 64), row.get("height", 48))).save(picture)
    run("data", "check", "pasted.jsonl", "--images", "photos")
    assert len(load_examples("pasted.jsonl", "photos")) == len(rows)
