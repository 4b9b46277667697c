"""The command line: what it prints, and that every error is one clear message with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures_path import needs_fixtures, shared
from PIL import Image
from typer.testing import CliRunner, Result

from opengrit.cli.app import app
from opengrit.version import __version__

ROW = {
    "question": "How many?",
    "answer": 1,
    "image": "a.png",
    "width": 20,
    "height": 10,
    "bboxs": [[1, 1, 9, 9]],
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def data(folder: Path, *rows: dict[str, Any], name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "a.png").exists():
        Image.new("RGB", (20, 10)).save(folder / "a.png")
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_clean_data_exits_with_0_and_shows_counts_and_balance(tmp_path: Path) -> None:
    file = data(tmp_path, ROW, ROW | {"question": "And?", "answer": "Yes"})
    result = run("data", "check", file, "--images", tmp_path)
    assert result.exit_code == 0
    assert "2 rows, 1 pictures" in result.stdout
    assert "answers of a: '1' 1, 'yes' 1" in result.stdout
    assert "Leaks: not checked" in result.stdout


def test_names_of_data_sets_stay_on_one_line_in_80_columns(tmp_path: Path) -> None:
    name = "my-pictures/spatial-22"
    file = data(tmp_path, *[ROW | {"dataset": name, "question": str(i)} for i in range(2)])
    result = CliRunner().invoke(
        app, ["data", "check", str(file), "--images", str(tmp_path)], env={"COLUMNS": "80"}
    )
    row = next(
        line for line in result.stdout.splitlines() if f"{name} " in line and line.startswith("\u2502")
    )
    assert len(row) <= 80


def test_a_missing_picture_is_listed_and_exits_with_2(tmp_path: Path) -> None:
    file = data(tmp_path, ROW | {"image": "gone.png"})
    result = run("data", "check", file, "--images", tmp_path)
    assert result.exit_code == 2
    assert "missing pictures: 1" in result.stdout
    assert "gone.png" in result.stdout


def test_every_bad_row_is_printed_and_exits_with_2(tmp_path: Path) -> None:
    file = data(tmp_path, *[ROW | {"answer": None}] * 70)
    result = run("data", "check", file)
    assert result.exit_code == 2
    assert "problems: 70" in result.stdout
    assert f"error: {file}:1: answer: must be a string" in result.stdout
    assert "(69 more lines have the same problem: 2-70)" in result.stdout


def test_a_picture_in_training_and_test_exits_with_1(tmp_path: Path) -> None:
    train = data(tmp_path, ROW)
    test = data(tmp_path, ROW | {"question": "Another?"}, name="b")
    result = run("data", "check", train, "--images", tmp_path, "--against", test)
    assert result.exit_code == 1
    assert "Leaks: 1 training rows against 1 test rows" in result.stdout
    assert "b:1 and a:1: a.png" in result.stdout


def test_folders_are_given_once_or_once_for_each_file(tmp_path: Path) -> None:
    one, two = data(tmp_path / "one", ROW), data(tmp_path / "two", ROW)
    assert run("data", "check", one, two, "--images", one.parent, "--images", two.parent).exit_code == 0
    assert run("data", "check", one, two, "--images", one.parent).exit_code == 0
    result = run("data", "check", one, *["--images", one.parent] * 2)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --images is given once")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "check", "nothing.jsonl"),
        ("data", "check", "a.jsonl", "--images", "nowhere"),
        ("data", "make", "stickers", "--set", "trin20", "--out", "out"),
    ],
)
def test_an_error_is_one_line_on_stderr_without_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    data(tmp_path, ROW)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "a.png"]


def test_stickers_are_made_once_and_pass_their_own_check(tmp_path: Path) -> None:
    assert run("data", "make", "stickers", "--out", tmp_path, "--set", "train20").exit_code == 0
    result = run("data", "check", tmp_path / "train20.jsonl", "--images", tmp_path / "images")
    assert result.exit_code == 0
    assert "20 rows, 20 pictures" in result.stdout
    again = run("data", "make", "stickers", "--out", tmp_path, "--set", "train20")
    assert again.exit_code == 2
    assert "never overwritten" in again.stderr


@needs_fixtures
def test_the_released_gqa_file_reports_its_one_bad_box_and_no_more() -> None:
    result = run("data", "check", shared("grit_val", "gqa_val.jsonl"))
    assert result.exit_code == 0
    assert "problems: 1\n" in result.stdout
    assert "gqa_val.jsonl:387: bboxs[0]" in result.stdout


def test_the_installed_module_runs_and_knows_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opengrit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"opengrit {__version__}\n"
