"""The commands of the pages run in the order they stand there; each page begins in a reader's folder after docs/start.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from page_commands import DOCS, UNTIL_STOPPED, blocks_of, page_blocks, run_page
from PIL import Image

from opengrit.recipes.training_recipe import parse_recipe

# What a command may need that a laptop without a network, after `make setup`, has not; nothing else is left out.
NEEDED = ("network", "GPU", "server", "machines", "account", "damaged", "minutes", "hours")
# Generated, or run by tests of their own: in a folder of their own, in a process of their own.
ELSEWHERE = {"commands.md", "start.md", "your-own-data.md", "python.md"}
ALL = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
PAGES = [
    page
    for page in ALL
    if page not in ELSEWHERE and any(one.is_run and one.language != "yaml" for one in page_blocks(page))
]


def make_photos(folder: Path) -> None:
    """What docs/start.md asks for: twenty photos and a sheet."""
    (folder / "photos").mkdir()
    for number in range(1, 21):
        Image.new("RGB", (100, 80), (12 * number, 60, 60)).save(folder / "photos" / f"{number:04d}.jpg")
    rows = [f"{number:04d}.jpg,How many dogs are there?,{number % 3}" for number in range(1, 21)]
    (folder / "sheet.csv").write_text("\n".join(["photo,question,answer", *rows]) + "\n")


def make_own_files(folder: Path) -> None:
    """What a reader of the other pages has: a picture, photos, rows about them, and a recipe."""
    (folder / "photos").mkdir()
    (folder / "test_photos").mkdir()
    Image.new("RGB", (168, 112), "white").save(folder / "dogs.png")
    rows: dict[str, list[dict[str, object]]] = {"mine.jsonl": [], "test.jsonl": [], "questions.jsonl": []}
    for number in range(1, 11):
        name = f"{number:04d}.jpg"
        for photos, shade in (("photos", 60), ("test_photos", 160)):
            Image.new("RGB", (100, 80), (25 * number, shade, 60)).save(folder / photos / name)
        row = {"image": name, "question": f"How many dogs are in photo {number}?", "answer": number % 3}
        rows["mine.jsonl"].append(row)
        rows["test.jsonl"].append(row | {"question": f"How many cats are in photo {number}?"})
    rows["questions.jsonl"].append(
        {"image": "dogs.png", "question": "How many dogs are there?", "id": "dogs"}
    )
    rows["train.jsonl"] = rows["mine.jsonl"]
    for file, lines in rows.items():
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder after docs/start.md."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("torch.cuda.is_available", lambda: False)
        make_photos(folder)
        run_page("start.md")
    return folder


@pytest.mark.trains
def test_ten_minutes_end_with_a_model_an_answer_a_report_and_a_recipe(begun: Path) -> None:
    assert (begun / "runs/demo/final/model.safetensors").is_file()
    assert Image.open(begun / "answer.png").size == (320, 480)  # a drawing is enlarged
    assert "<html" in (begun / "report.html").read_text(encoding="utf-8")
    assert (begun / "mine/recipe.yaml").is_file()


def _annotated(printed: list[str]) -> None:
    assert Path("mine/train.jsonl").is_file()


def _asked(printed: list[str]) -> None:
    assert Image.open("drawn.png").size == Image.open("answered.png").size
    (line,) = Path("answers.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "dogs"
    assert len(Path("people.jsonl").read_text().splitlines()) == 10


def _exported(printed: list[str]) -> None:
    assert "stickers/count" in Path("exported/measured/README.md").read_text(encoding="utf-8")
    assert Path("exported/demo/model.safetensors").is_file()


def _probed(printed: list[str]) -> None:
    assert "after-probes" in Path("probes.html").read_text(encoding="utf-8")


def _recorded(printed: list[str]) -> None:
    written = Path("after.csv").read_text(encoding="utf-8").splitlines()
    assert len(written) == 1 + len(Path("runs/after/records.jsonl").read_text(encoding="utf-8").splitlines())


def _rewarded(printed: list[str]) -> None:
    record = json.loads(Path("runs/mine/records.jsonl").read_text().splitlines()[0])
    assert "short_thought" in str(record)


def _served(printed: list[str]) -> None:
    (answer,) = map(json.loads, printed)  # of curl
    assert answer["transcript"]


def _compared(printed: list[str]) -> None:
    assert "direct" in Path("runs/look/table.md").read_text(encoding="utf-8")


def _tracked(printed: list[str]) -> None:
    assert any(Path("runs/tracked/tensorboard").rglob("events*"))


# What the commands of a page leave behind, in the working folder.
LEFT: dict[str, Callable[[list[str]], None]] = {
    "annotate.md": _annotated,
    "asking.md": _asked,
    "probes.md": _probed,
    "publishing.md": _exported,
    "records.md": _recorded,
    "rewards.md": _rewarded,
    "serving.md": _served,
    "table.md": _compared,
    "trackers.md": _tracked,
}


@pytest.mark.trains
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_their_order(
    page: str, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_own_files(tmp_path)
    for folder in ("runs", "stickers"):
        shutil.copytree(begun / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    printed = run_page(page)
    if page in LEFT:
        LEFT[page](printed)


def test_a_page_says_why_its_reader_may_not_be_able_to_run_a_block() -> None:
    assert LEFT.keys() <= set(PAGES)
    marks = {(page, block.mark) for page in ALL for block in page_blocks(page) if block.mark}
    assert len(marks) > 15
    unclear = [one for one in marks if one[1] != UNTIL_STOPPED and not any(word in one[1] for word in NEEDED)]
    assert unclear == [], f"a mark names one of {NEEDED}"


def test_a_reader_of_every_page_is_never_told_that_a_file_is_there_already() -> None:
    outs = [
        (words[place + 1].rstrip("/"), page)
        for page in ALL
        if page not in ("commands.md", "your-own-data.md", "annotate.md")  # other ways to the same mine/
        for block in page_blocks(page)
        if block.is_run and not block.language
        for words in (shlex.split(line, comments=True) for line in block.commands)
        if "--resume" not in words
        and words[1] not in ("doctor", "probe")  # one writes nothing, one continues
        for place, word in enumerate(words)
        if word in ("--out", "--draw", ">")
    ]
    assert len(outs) > 30
    assert [one for one, times in Counter(out for out, _ in outs).items() if times > 1] == []


def test_blocks_marks_and_commands_are_read_as_a_reader_reads_them() -> None:
    page = """Text.

    opengrit one --a 1 \\
        --b 2            # why
    # a remark
    opengrit two > out.txt

    opengrit three

*Needs a GPU:*

    opengrit four

    {"not": "a command"}

```python
# my.py
x = 1
```

- A list

  *Runs until Ctrl-C:*
"""
    first, second, third = blocks_of(page)
    assert [line.split()[1:] for line in first.commands] == [
        ["one", "--a", "1", "--b", "2", "#", "why"],
        ["two", ">", "out.txt"],
        ["three"],
    ]
    assert (first.is_run, second.is_run) == (True, False)
    assert (second.mark, second.commands[0]) == ("Needs a GPU", "opengrit four")
    assert (third.language, third.file, third.mark) == ("python", "my.py", None)


SECTIONS = [
    (page, block.text)
    for page in ALL
    for block in page_blocks(page)
    if block.language == "yaml"
    and page not in ("rewards.md", "your-own-data.md", "table.md")  # with files of their own
]


@pytest.mark.parametrize(("page", "text"), SECTIONS, ids=[page for page, _ in SECTIONS])
def test_what_a_page_shows_of_a_recipe_is_valid_in_one(page: str, text: str) -> None:
    rest = {
        "model": "model: tiny-qwen2.5-vl\n",
        "data": "data: {train: [stickers/train20]}\n",
    }
    given = set(re.findall(r"^(\w+):", text, re.MULTILINE))
    parse_recipe("".join(line for key, line in rest.items() if key not in given) + text)
