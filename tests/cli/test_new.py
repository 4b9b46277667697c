"""`opengrit new`: a spreadsheet and photos become a folder that trains, and the printed commands run as they are copied."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fixtures_path import needs_fixtures, shared, shared_rows
from PIL import Image
from typer.testing import CliRunner, Result

from opengrit.cli.app import app
from opengrit.core.errors import DataError
from opengrit.data import load
from opengrit.data.split import split_by_picture
from opengrit.judges.answers import answer_kind
from opengrit.recipes.choosing import Setting, choose, written_recipe
from opengrit.recipes.training_recipe import parse_recipe


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def spreadsheet(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "question", "count", "boxes"])
        for row in rows:
            writer.writerow([row["image"], row["question"], row["answer"], json.dumps(row["bboxs"])])
    return path


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a sheet about twelve small pictures, two rows each."""
    (tmp_path / "photos").mkdir()
    rows: list[dict[str, object]] = []
    for number in range(12):
        Image.new("RGB", (64, 48), (20 * number, 90, 90)).save(tmp_path / "photos" / f"{number}.png")
        for what in ("cats", "dogs"):
            question = f"How many {what} are there?" if number % 3 else f"Are there {what}?"
            answer = number % 4 if number % 3 else "Yes"
            rows.append({"image": f"{number}.png", "question": question, "answer": answer, "bboxs": []})
    spreadsheet(tmp_path / "sheet.csv", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_fixtures
@pytest.mark.trains
def test_a_sheet_and_photos_end_in_a_report_by_the_commands_that_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shared_rows("real_photos", "counting.jsonl")
    assert len(rows) == 69
    spreadsheet(tmp_path / "sheet.csv", rows)
    (tmp_path / "photos").symlink_to(shared("real_photos", "images"))
    monkeypatch.chdir(tmp_path)
    made = run(
        "new",
        "sheet.csv",
        "--images",
        "photos/",
        "--out",
        "mine/",
        "--steps",
        "1",
        "--model",
        "tiny-qwen2.5-vl",
    )
    assert made.exit_code == 0, made.output
    assert "knows emoji stickers only" in made.output
    commands = [line.strip() for line in made.output.splitlines() if line.startswith("    opengrit ")]
    assert [shlex.split(line)[1] for line in commands] == ["train", "eval", "report"]
    for line in commands:
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output)
    report = Path("mine/report.html").read_text(encoding="utf-8")
    assert "How many" in report
    train, test = load("mine/train.jsonl", images="photos"), load("mine/test.jsonl", images="photos")
    assert len(train) + len(test) == 69
    assert len(Path("mine/tested/records.jsonl").read_text().splitlines()) == len(test)


def test_the_parts_share_no_picture_and_have_the_kinds_of_the_whole(shapes: Path) -> None:
    made = run(
        "new",
        "sheet.csv",
        "--images",
        "photos",
        "--out",
        "mine",
        "--model",
        "tiny-internvl3",
        "--test-share",
        "0.25",
    )
    assert made.exit_code == 0, made.output
    train, test = (load(f"mine/{part}.jsonl", images="photos") for part in ("train", "test"))
    assert {one.image for one in train}.isdisjoint(one.image for one in test)
    assert (len(train), len(test)) == (18, 6)
    kinds = [Counter(answer_kind(one.answer, one.question).value for one in rows) for rows in (train, test)]
    assert all(set(found) == {"number", "yes/no"} for found in kinds)  # 16 and 8 rows of the whole
    text = Path("mine/recipe.yaml").read_text(encoding="utf-8")
    assert "  questions_per_step: 18  # of your 18 rows\n" in text
    assert "  per_device_train_batch_size: 144  # all in one pass\n" in text
    recipe = parse_recipe(text)
    assert recipe.model.name == "tiny-internvl3"
    assert (recipe.train.questions_per_step, recipe.train.per_device_train_batch_size) == (18, 144)
    assert [source.spec for source in (*recipe.data.train, *recipe.data.eval)] == [
        "mine/train.jsonl",
        "mine/test.jsonl",
    ]
    checked = run("data", "check", "mine/train.jsonl", "--images", "photos", "--against", "mine/test.jsonl")
    assert checked.exit_code == 0, checked.output


def test_nothing_is_overwritten_and_nothing_is_left_of_what_fails(shapes: Path) -> None:
    Path("mine").mkdir()
    refused = run("new", "sheet.csv", "--images", "photos", "--out", "mine", "--model", "tiny-qwen2.5-vl")
    assert refused.exit_code == 2
    assert "mine exists" in refused.output
    for words, said in (
        (("--out", "sheet.csv/x"), "the folder to write to must be writable, sheet.csv is not"),
        (("--out", "other", "--model", "./none"), "a model is a packaged name"),
    ):
        result = run("new", "sheet.csv", "--images", "photos", *words)
        assert result.exit_code == 2, result.output
        assert said in result.output
    (shapes / "photos" / "0.png").write_bytes(
        (shapes / "photos" / "0.png").read_bytes()[:60]
    )  # the header opens
    failed = run("new", "sheet.csv", "--images", "photos", "--out", "other", "--model", "tiny-qwen2.5-vl")
    assert failed.exit_code == 2
    assert "0.png" in failed.output
    assert sorted(path.name for path in shapes.iterdir()) == ["mine", "photos", "sheet.csv"]


def test_without_space_the_error_says_so_and_nothing_is_half_written(shapes: Path) -> None:
    command = [sys.executable, "-m", "opengrit", "data", "import", "sheet.csv", "--images", "photos"]
    limited = 'ulimit -f 1; exec "$@"'  # files of at most 1 KiB
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *command, "--out", "mine.jsonl"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: output needs free disk space")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in shapes.iterdir()) == ["photos", "sheet.csv"]


def test_what_a_terminal_cannot_show_is_no_crash(shapes: Path) -> None:
    row = {"image": "0.png", "question": "How many cats \u2013 roughly?", "answer": "\u7b54"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "opengrit", "data", "check", "rows.jsonl", "--images", "photos"]
    terminal = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=terminal, capture_output=True, encoding="latin-1")
    assert done.returncode == 0, done.stderr
    assert "answers of rows: '?' 1" in done.stdout


def test_the_command_that_only_converts_writes_rows_that_check(shapes: Path) -> None:
    done = run(
        "data",
        "import",
        "sheet.csv",
        "--images",
        "photos",
        "--out",
        "rows.jsonl",
        "--columns",
        "answer=count",
    )
    assert done.exit_code == 0, done.output
    assert (
        "rows: 24, pictures: 12 (columns: picture=photo, question=question, answer=count, boxes=boxes)"
        in done.output
    )
    for file in ("rows.jsonl", "sheet.csv"):
        assert run("data", "check", file, "--images", "photos").exit_code == 0
    again = run("data", "import", "sheet.csv", "--images", "photos", "--out", "rows.jsonl")
    assert again.exit_code == 2
    assert "never overwritten" in again.output
    for bad in (["--columns", "photo"], ["--boxes", "corners"], ["--box-units", "cm"], ["--coco", "x"]):
        wrong = run("data", "import", "sheet.csv", "--out", "other.jsonl", *bad)
        assert wrong.exit_code == 2, bad
        assert bad[1] in wrong.output


@pytest.mark.parametrize(
    ("gb", "model", "named", "trained"),
    [
        (None, None, "demo", "tiny-qwen2.5-vl"),
        (6, None, "demo", "tiny-qwen2.5-vl"),
        (12, None, "grit20-qwen2.5-vl-3b-16gb-qlora", "Qwen/Qwen2.5-VL-3B-Instruct"),
        (15.8, None, "grit20-internvl3-2b-16gb-lora", "OpenGVLab/InternVL3-2B-hf"),
        (25.4, None, "grit20-qwen2.5-vl-3b-24gb-lora", "Qwen/Qwen2.5-VL-3B-Instruct"),
        (85, None, "grit20-qwen2.5-vl-3b-one-80gb", "Qwen/Qwen2.5-VL-3B-Instruct"),
        (25.4, "OpenGVLab/InternVL3-2B-hf", "grit20-internvl3-2b-16gb-lora", "OpenGVLab/InternVL3-2B-hf"),
        (25.4, "me/my-InternVL3-8B-hf", "grit20-internvl3-2b-16gb-lora", "me/my-InternVL3-8B-hf"),
        (15.8, "Qwen/Qwen3-VL-4B-Instruct", "grit20-qwen2.5-vl-3b-16gb-qlora", "Qwen/Qwen3-VL-4B-Instruct"),
        (None, "Qwen/Qwen2.5-VL-3B-Instruct", "grit20-qwen2.5-vl-3b-16gb-qlora", "Qwen/Qwen2.5-VL-3B-Instruct"),
    ],
)  # fmt: skip
def test_the_recipe_is_the_largest_that_the_memory_allows(
    gb: float | None, model: str | None, named: str, trained: str
) -> None:
    choice = choose(device_gb=gb, model=model)
    assert (choice.packaged.name, choice.model) == (named, trained)
    assert bool(choice.note) == (gb is None or gb == 6 or trained != choice.recipe.model.name)
    data = "data:\n  train: [mine/train.jsonl]\n"
    text = written_recipe(choice, data=data, values={"train.max_steps": Setting(7)})
    written = parse_recipe(text)
    assert (written.model.name, written.train.max_steps) == (trained, 7)
    assert [source.spec for source in written.data.train] == ["mine/train.jsonl"]
    changed = {"model": written.model, "data": written.data, "train": written.train}
    assert choice.recipe.model_copy(update=changed) == written  # everything else is the packaged recipe's
    assert choice.recipe.train.model_copy(update={"max_steps": 7}) == written.train


def test_a_split_is_the_same_for_a_seed_and_needs_two_pictures(shapes: Path) -> None:
    rows = [one for one in load_sheet(shapes)]
    first = split_by_picture(rows, test_share=0.3, seed=1)
    assert first == split_by_picture(rows, test_share=0.3, seed=1)
    assert any(first != split_by_picture(rows, test_share=0.3, seed=seed) for seed in range(2, 6))
    for seed in range(20):
        few = split_by_picture(rows[:4], test_share=0.01, seed=seed)  # two pictures
        assert (len(few.train), len(few.test)) == (2, 2)
    with pytest.raises(DataError, match="at least two different pictures"):
        split_by_picture(rows[:2], test_share=0.2, seed=0)
    with pytest.raises(DataError, match="between 0 and 1"):
        split_by_picture(rows, test_share=1.0, seed=0)
    copied = split_by_picture(
        rows, test_share=0.3, seed=0, picture_of=lambda path: "same" if "1" in Path(path).name else path
    )
    named = [{"1" in Path(one.image).name for one in part} for part in (copied.train, copied.test)]
    assert named != [{True, False}, {True, False}]  # pictures of one content are on one side


def load_sheet(folder: Path) -> list:
    from opengrit.data import load_examples

    return load_examples(folder / "sheet.csv", folder / "photos")


def test_pictures_inside_a_source_become_files_and_its_own_split_is_kept(shapes: Path) -> None:
    import datasets

    rows = [
        {
            "image": {"bytes": (shapes / "photos" / f"{number}.png").read_bytes(), "path": None},
            "question": "How many?",
            "answer": str(number),
            "split": "validation" if number < 3 else "train",
        }
        for number in range(12)
    ]
    datasets.Dataset.from_list(rows).to_parquet("rows.parquet")
    made = run("new", "rows.parquet", "--out", "mine", "--model", "tiny-qwen2.5-vl")
    assert made.exit_code == 0, made.output
    assert "the rows' own split is kept" in made.output
    recipe = parse_recipe(Path("mine/recipe.yaml").read_text(encoding="utf-8"))
    (trained,), (tested,) = recipe.data.train, recipe.data.eval
    assert [one.answer for one in load(tested.spec, images=tested.images)] == ["0", "1", "2"]
    assert [one.answer for one in load(trained.spec, images=trained.images)] == [str(n) for n in range(3, 12)]
    assert len(list(Path("mine/pictures").iterdir())) == 12
    assert recipe.train.questions_per_step == 9
