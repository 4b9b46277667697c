"""The commands of the short pages run in the order they stand there, in a folder that was empty before the first."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from page_commands import DOCS, run_commands
from PIL import Image

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder after docs/start.md."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("torch.cuda.is_available", lambda: False)
        make_photos(folder)
        # Needs a network, and a GPU.
        paper = ("opengrit data get", "opengrit doctor grit20", "opengrit train grit20")
        run_commands("start.md", left_out=paper)
    return folder


@pytest.fixture
def reader(begun: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(begun)
    return begun


def make_photos(folder: Path) -> None:
    """What docs/start.md asks for: twenty photos and a sheet."""
    (folder / "photos").mkdir()
    for number in range(1, 21):
        Image.new("RGB", (100, 80), (12 * number, 60, 60)).save(folder / "photos" / f"{number:04d}.jpg")
    rows = [f"{number:04d}.jpg,How many dogs are there?,{number % 3}" for number in range(1, 21)]
    (folder / "sheet.csv").write_text("\n".join(["photo,question,answer", *rows]) + "\n")


def test_ten_minutes_end_with_a_model_an_answer_a_report_and_a_recipe(reader: Path) -> None:
    assert (reader / "runs/demo/final/model.safetensors").is_file()
    assert Image.open(reader / "answer.png").size == (320, 480)  # a drawing is enlarged
    assert "<html" in (reader / "report.html").read_text(encoding="utf-8")


def test_the_probes_of_the_page_measure_the_evaluation_of_the_first(reader: Path) -> None:
    (reader / "report.html").rename(reader / "first.html")
    run_commands("probes.md", left_out=["opengrit probe runs/after --out runs/after-probes --correlation"])
    assert "after-probes" in (reader / "report.html").read_text(encoding="utf-8")


def test_what_the_publishing_page_exports_has_the_figures_on_its_card(reader: Path) -> None:
    run_commands("publishing.md", left_out=["opengrit export runs/demo --out exported/demo --push"])
    card = (reader / "exported/measured/README.md").read_text(encoding="utf-8")
    assert "stickers/count" in card
    assert (reader / "exported/demo/model.safetensors").is_file()


def test_the_records_of_the_page_become_a_table_and_coco(reader: Path) -> None:
    shutil.copytree(reader / "runs/after", reader / "runs/count")
    run_commands("records.md")
    assert len((reader / "count.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_rewards_prompts_and_judges_of_the_page_train_and_answer(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        name = re.match(r"# (\w+\.py)", text)
        assert name is not None
        with (tmp_path / name[1]).open("a", encoding="utf-8") as file:
            file.write(text)
    (tmp_path / "my_prompt.txt").write_text("{question} Say <answer>.")
    (tmp_path / "recipe.yaml").write_text(
        "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\njudge: my_judge.py:graded\n"
        "rewards: {correct: 1, my_rewards.py:short_thought: 0.3}\nstrategy: my_prompt.txt\n"
        "train: {num_generations: 8, bf16: false, gradient_checkpointing: false, save_steps: null, eval_steps: null}\n"
    )
    shutil.copy(reader / "stickers/images/count-00003.png", tmp_path / "dogs.png")
    row = {"question": "How many dogs are there?", "answer": 3, "image": "dogs.png"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    run_commands("rewards.md", left_out=["opengrit serve"])  # serves until it is stopped
    record = json.loads((tmp_path / "runs/mine/records.jsonl").read_text().splitlines()[0])
    assert "short_thought" in str(record)
