"""The commands of docs/your-own-data.md run in the order they stand there, as they are copied."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from page_commands import DOCS, commands_of, run_page
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.recipes.training_recipe import parse_recipe

PAGE = DOCS / "your-own-data.md"


def make_files(folder: Path) -> None:
    """What the page takes for granted: a sheet, photos, COCO annotations, and sheets of other names and units."""
    (folder / "photos").mkdir()
    names = [f"{number:04d}.jpg" for number in range(1, 11)]
    for number, name in enumerate(names):
        Image.new("RGB", (100, 80), (25 * number, 60, 60)).save(folder / "photos" / name)
    questions = [(name, f"How many {what} are there?", count % 3) for count, name in enumerate(names) for what in ("cups", "dogs")]  # fmt: skip
    lines = {
        "sheet.csv": ["photo,question,count", *(f"{n},{q},{a}" for n, q, a in questions)],
        "other.csv": ["shot,old shot,ask,said,note", *(f"{n},{n},{q},{a},9" for n, q, a in questions)],
        "percent.csv": [
            "image,question,answer,bbox",
            *(f'{n},{q},{a},"10, 10, 20, 30"' for n, q, a in questions),
        ],
    }
    for file, text in lines.items():
        (folder / file).write_text("\n".join(text) + "\n")
    coco = {
        "images": [{"id": 1, "file_name": names[0], "width": 100, "height": 80}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 3, "name": "cup"}],
    }
    (folder / "instances.json").write_text(json.dumps(coco))


@pytest.mark.trains
def test_the_commands_of_the_page_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    # As on a machine without a GPU, where the page's one training is of the packaged model.
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    printed = run_page("your-own-data.md")
    assert len(printed) == 10
    assert all(command in printed[0] for command in commands_of("your-own-data.md")[1:4])  # opengrit new
    assert json.loads(Path("percent.jsonl").read_text().splitlines()[0])["bboxs"] == [[10, 8, 30, 32]]
    assert [json.loads(line)["answer"] for line in Path("counts.jsonl").read_text().splitlines()] == [1]
    changed = (
        Path("sheet.csv")
        .read_text()
        .replace("0001.jpg,How many cups are there?,0", "0001.jpg,How many cups are there?,5")
    )
    Path("sheet.csv").write_text(changed)
    told = CliRunner().invoke(app, ["report", "asked", "--out", "asked.html"])
    assert told.exit_code == 0, told.output
    assert "answer changed" in Path("asked.html").read_text(encoding="utf-8") + told.output


def test_the_recipe_of_the_page_is_one() -> None:
    (data,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    sources = parse_recipe(f"model: tiny-qwen2.5-vl\n{data}").data.train
    assert [source.spec for source in sources] == ["sheet.csv", "more/*.jsonl", "hub:owner/name:train"]
    assert (sources[0].table.columns.answer, sources[2].table.units) == ("count", "percent")
