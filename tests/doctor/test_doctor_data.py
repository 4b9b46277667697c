"""The doctor on data that does not fit: pictures that are not there, boxes of another convention."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from opengrit.cli.app import app

UNSIZED = {"question": "How many dogs are there?", "image": "PICTURE"}


def findings(tmp_path: Path, *rows: dict) -> list[dict]:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [f"data.train=[{{file: '{file}'}}]", "data.eval=[]"]
    options = [word for change in changes for word in ("--set", change)]
    result = CliRunner().invoke(app, ["doctor", "demo", "--quick", "--json", *options])
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)["findings"]


def test_nothing_is_estimated_from_sizes_that_are_not_known(tmp_path: Path) -> None:
    rows = [UNSIZED | {"image": f"{i}.png", "answer": i % 3} for i in range(20)]
    found = findings(tmp_path, *rows)
    (memory,) = [one for one in found if one["name"] == "memory"]
    assert (memory["level"], memory["found"]) == (
        "skipped",
        "picture sizes of 20 rows are not known: the pictures are missing, and the rows do not give the sizes",
    )
    (pictures,) = [one for one in found if one["name"] == "pictures"]
    assert f"20 of 20 pictures of {tmp_path / 'mine.jsonl'} are not in {tmp_path}: " in pictures["found"]
    assert "images:" in pictures["remedy"]
    assert [one["name"] for one in found if one["area"] == "data" and one["level"] == "fail"] == ["pictures"]


def test_boxes_of_widths_are_a_warning(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    rows = [
        {
            "question": f"How many dogs, {i}?",
            "answer": i % 3,
            "image": "a.png",
            "bboxs": [[4 + i % 3, 3, 20 + i, 12]],
        }
        for i in range(20)
    ]
    (doubt,) = [one for one in findings(tmp_path, *rows) if one["name"] == "doubts"]
    assert doubt["level"] == "warn"
    assert "x, y, width, height (COCO)" in doubt["found"]
