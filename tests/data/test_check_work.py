"""A check of much data: every file read once, every picture opened once, and progress on the way."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from opengrit.data.check import LeakKind, Source, check

ROWS, PICTURES = 2500, 5
opened: Counter[str] = Counter()  # files by path, since the tests began


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.addaudithook(lambda event, args: opened.update([str(args[0])]) if event == "open" else None)
    folder = tmp_path_factory.mktemp("much")
    for number in range(PICTURES):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
    rows = [
        {
            "question": f"How many things of kind {number} are there?", "answer": number % 4,
            "image": f"{number % PICTURES}.png", "width": 64, "height": 48, "bboxs": [[1, 2, 30, 40]],
            "split": "test" if number % 10 == 0 else "train",
        }
        for number in range(ROWS)
    ]  # fmt: skip
    rows[7]["anwser"] = 3  # close to a field's name
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_files_are_read_once_and_pictures_are_opened_once_and_hashed_once(folder: Path) -> None:
    opened.clear()
    found = check([Source(folder / "rows.jsonl", folder)])
    assert found.files[0].rows == ROWS
    assert opened[str(folder / "rows.jsonl")] == 1
    assert [opened[str(folder / f"{number}.png")] for number in range(PICTURES)] == [2] * PICTURES
    assert Counter(leak.kind for leak in found.leaks) == {LeakKind.PICTURE: ROWS // 10}


def test_progress_reaches_the_number_of_rows_and_of_pictures(folder: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    check([Source(folder / "rows.jsonl", folder)], watch=lambda *way: told.append(way))
    assert told[:3] == [
        ("rows of rows.jsonl", 1000, None),
        ("rows of rows.jsonl", 2000, None),
        ("rows of rows.jsonl", ROWS, ROWS),
    ]
    assert told[3:] == [("pictures", number, PICTURES) for number in range(1, PICTURES + 1)]


def test_a_leak_is_found_whichever_of_a_pictures_training_rows_asks_the_question(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    plain = {"answer": 1, "image": "a.png", "width": 20, "height": 10}
    asked = [("train", "One?"), ("train", "Two?"), ("train", "two? "), ("test", "TWO?"), ("test", "Three?")]
    rows = [plain | {"split": split, "question": question} for split, question in asked]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    leaks = check([Source(tmp_path / "rows.jsonl", tmp_path)]).leaks
    assert [(leak.kind, leak.train_id, leak.test_id) for leak in leaks] == [
        (LeakKind.PAIR, "rows:2", "rows:4"),
        (LeakKind.PICTURE, "rows:1", "rows:5"),
    ]
