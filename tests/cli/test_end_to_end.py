"""From a recipe to a report, as a user does it: train, eval, report and ask with the packaged models, and real photos."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_path import needs_fixtures, shared, shared_rows
from forked import command, wait_for
from fresh import Printed, printed_by
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from opengrit.cli.app import app
from opengrit.data import stickers
from opengrit.runs.folder import RunDir

DEMO = "demo"
FAMILIES = ("tiny-qwen2.5-vl", "tiny-internvl3")
# The demo recipe, two steps of four questions with two tries each.
SMALL = {
    "max_steps": 2,
    "num_generations": 2,
    "questions_per_step": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 60,
    "save_steps": 1,
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})


def succeed(*arguments: object) -> str:
    """The standard output of a command that ends well."""
    result = run(*arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def small(**changed: object) -> list[str]:
    """The demo recipe and the options that make it small."""
    settings = SMALL | changed
    return [DEMO, *(x for key, value in settings.items() for x in ("--set", f"train.{key}={value}"))]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def sticker() -> Path:
    return Path(stickers.examples("count")[3].image)


def pictures_of(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training run "train" of two steps, and an evaluation before and one after it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = request.param
    succeed("train", *small(), "--set", f"model={model}", "--out", folder / "train", "--quiet")
    for name, asked in (("before", model), ("after", folder / "train")):
        data = ("--data", "stickers/count", "--data", "stickers/spatial", "--limit", 4)
        options = ("--max-new-tokens", 80, "--batch-size", 3, "--quiet")
        printed = succeed("eval", "--model", asked, *data, *options, "--out", folder / name)
        assert "Accuracy" in printed
        assert f"records: {folder / name / 'records.jsonl'}" in printed
    return folder


@pytest.mark.slow
def test_a_trained_run_holds_its_recipe_every_rollout_and_the_model(trained: Path) -> None:
    folder = trained / "train"
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints",
        "data.jsonl",
        "environment.json",
        "final",
        "metrics.jsonl",
        "origin.json",
        "recipe.yaml",
        "records.jsonl",
    ]
    assert [p.name for p in RunDir.open(folder).checkpoints()] == ["step-000001", "step-000002"]
    written = records(folder)
    assert len(written) == 2 * 4 * 2
    assert len({r["id"] for r in written}) == len(written)
    # Eight different questions in two steps: no row comes twice before every row has come once.
    assert len({r["example"]["id"] for r in written}) == 8
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]


@pytest.mark.slow
def test_evaluations_before_and_after_ask_the_same_questions(trained: Path) -> None:
    before, after = records(trained / "before"), records(trained / "after")
    assert len(before) == 8
    assert [r["example"] for r in before] == [r["example"] for r in after]
    assert {r["failure"] for r in before + after} == {None}


@pytest.mark.slow
def test_the_report_shows_tables_curves_and_pictures_without_a_network(trained: Path) -> None:
    out = trained / "report.html"
    printed = succeed("report", *(trained / name for name in ("before", "train", "after")), "--out", out)
    assert f"report: {out}" in printed
    assert "after - before" in printed
    page = out.read_text(encoding="utf-8")
    # Eight questions, before and after side by side, each with its picture.
    assert len(pictures_of(page)) == 16
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<svg" in page


@pytest.mark.slow
def test_ask_answers_in_json_and_draws_on_a_copy(trained: Path, tmp_path: Path) -> None:
    picture, drawn = sticker(), tmp_path / "out.png"
    before = picture.read_bytes()
    options = ("--model", trained / "train", "--json", "--draw", drawn, "--max-new-tokens", 80)
    answer = json.loads(succeed("ask", picture, "How many dogs are there?", *options))
    assert answer["question"] == "How many dogs are there?"
    assert answer["picture_size"] == list(Image.open(picture).size)
    width, height = answer["picture_size"]
    for box in answer["boxes"]:
        left, top, right, bottom = box["pixels"]
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    assert max(Image.open(drawn).size) == 480  # a small picture is enlarged, so that its numbers can be read
    assert picture.read_bytes() == before


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(trained: Path) -> None:
    folder = trained / "train"
    before = tree(folder)
    model = "tiny-internvl3" if "internvl" in trained.name else "tiny-qwen2.5-vl"
    printed = succeed("train", *small(), "--set", f"model={model}", "--out", folder, "--resume")
    assert printed == f"trained model: {folder / 'final'}\n"
    assert tree(folder) == before


@pytest.mark.slow
def test_a_broken_off_evaluation_goes_on_and_asks_nothing_twice(trained: Path, tmp_path: Path) -> None:
    whole, broken = trained / "before", tmp_path / "broken"
    shutil.copytree(whole, broken)
    lines = (whole / "records.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "records.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][: len(lines[4]) // 2])
    model = "tiny-internvl3" if "internvl" in trained.name else "tiny-qwen2.5-vl"
    data = ("--data", "stickers/count", "--data", "stickers/spatial", "--limit", 4)
    options = ("--max-new-tokens", 80, "--batch-size", 3, "--quiet")
    succeed("eval", "--model", model, *data, *options, "--out", broken)
    # Eight lines, the torn one written anew: the same bytes as those of the uninterrupted evaluation.
    assert (broken / "records.jsonl").read_bytes() == b"".join(lines)
    again = tree(broken)
    succeed("eval", "--model", model, *data, *options, "--out", broken)
    assert (broken / "records.jsonl").read_bytes() == b"".join(lines)
    assert {k: v for k, v in tree(broken).items() if k in again} == again


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_records(trained: Path, tmp_path: Path) -> None:
    model = "tiny-internvl3" if "internvl" in trained.name else "tiny-qwen2.5-vl"
    data = ("--data", "stickers/count", "--data", "stickers/spatial", "--limit", 4)
    options = ("--max-new-tokens", 80, "--batch-size", 3, "--quiet")
    succeed("eval", "--model", model, *data, *options, "--out", tmp_path / "again")
    assert (tmp_path / "again/records.jsonl").read_bytes() == (trained / "before/records.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_to_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    arguments = ["train", *small(max_steps=6), "--quiet"]
    killed = tmp_path / "killed"
    running = command(*arguments, "--out", killed)
    wait_for((killed / "checkpoints" / "step-000002").is_dir, of=[running])
    running.process.kill()
    running.code()
    assert not (killed / "final").exists()
    half = (killed / "records.jsonl").read_bytes()
    succeed(*arguments, "--out", killed, "--resume")
    assert (killed / "records.jsonl").read_bytes().startswith(half[: half.rfind(b"\n") + 1])
    succeed(*arguments, "--out", tmp_path / "whole")
    ours, theirs = (
        load_file(folder / "final" / "model.safetensors") for folder in (killed, tmp_path / "whole")
    )
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    ids = [record.id for record in RunDir.open(killed).records()]
    assert sorted(ids) == sorted(record.id for record in RunDir.open(tmp_path / "whole").records())


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Printed]]:
    """A folder, and what commands print that write to it, one after the other in a Python of their own."""
    folder = tmp_path_factory.mktemp("printed")
    # Adapters, checkpointing, checkpoints and completions cut off at four tokens: whatever makes others talk.
    options = ("--set", "lora.r=2", "--set", "train.gradient_checkpointing=true", "--quiet")
    data = ("--data", "stickers/count", "--limit", 2)
    # A box of a 112 x 112 picture that leaves it by 3 pixels is clipped, and the user is told.
    shutil.copy(sticker(), folder / "a.png")
    width, height = Image.open(folder / "a.png").size
    row = {"question": "How many?", "answer": 1, "image": "a.png", "width": width, "height": height}
    row["bboxs"] = [[1, 1, width + 3, 9]]
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    short = ("--max-new-tokens", 8)
    commands = {
        "train": ("train", *small(max_completion_length=4), *options, "--out", folder / "train"),
        "eval": ("eval", "--model", folder / "train", *data, *short, "--quiet", "--out", folder / "eval"),
        "ask": ("ask", sticker(), "How many dogs are there?", *short, "--json"),
        "warn": (
            "eval", "--model", FAMILIES[0], "--data", folder / "a.jsonl", *short, "--quiet", "--out", folder / "warned",
        ),
    }  # fmt: skip
    return folder, dict(zip(commands, printed_by(*commands.values()), strict=True))


@pytest.mark.slow
def test_the_commands_print_what_we_mean_and_nothing_of_the_libraries_below(
    printed: tuple[Path, dict[str, Printed]],
) -> None:
    folder, found = printed
    assert [found[name].code for name in ("train", "eval", "ask")] == [0, 0, 0], found
    stdout, stderr = found["train"].lines
    assert stdout == [f"trained model: {folder / 'train' / 'final'}"]
    assert len(stderr) == 3
    assert re.fullmatch(r"the steps took \d+ s: .* waiting for the judge", stderr[2])
    assert re.fullmatch(r"step 1/2  reward .*  left 0:00:\d\d", stderr[0])
    assert re.fullmatch(r"step 2/2  reward .*  left 0:00:00", stderr[1])

    stdout, stderr = found["eval"].lines
    assert stderr == []
    assert stdout[0].strip() == "stickers/count"
    assert stdout[-1] == f"records: {folder / 'eval' / 'records.jsonl'}"

    stdout, stderr = found["ask"].lines
    assert len(stdout) == 1
    assert "answer" in json.loads(stdout[0])
    assert stderr == []


@pytest.mark.slow
def test_our_own_warnings_are_not_silenced_with_the_others(
    printed: tuple[Path, dict[str, Printed]],
) -> None:
    _, found = printed
    assert found["warn"].code == 0, found
    _, stderr = found["warn"].lines
    assert len(stderr) == 1
    assert "a.jsonl:1: bboxs[0]" in stderr[0]
    assert "leaves it by 3 pixels and is clipped" in stderr[0]


# -- real pictures, real annotations ----------------------------------------------------------------------------


@needs_fixtures
@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_real_photos_go_all_the_way_and_their_boxes_stay_where_they_are(model: str, tmp_path: Path) -> None:
    images = shared("real_photos", "images")
    files = {name: shared("real_photos", f"{name}.jsonl") for name in ("counting", "spatial")}
    assert "69 rows" in succeed("data", "check", *files.values(), "--images", images)

    sources = ", ".join(f"{{file: {file}, images: {images}}}" for file in files.values())
    data = ("--set", f"data.train=[{sources}]", "--set", "data.eval=[]")
    succeed("train", *small(), *data, "--set", f"model={model}", "--out", tmp_path / "train", "--quiet")
    options = ("--limit", 6, "--max-new-tokens", 60, "--quiet", "--images", images)
    asked = [x for file in files.values() for x in ("--data", file)]
    succeed("eval", "--model", tmp_path / "train", *asked, *options, "--out", tmp_path / "eval")
    succeed("report", tmp_path / "train", tmp_path / "eval", "--out", tmp_path / "report.html")

    rows = {
        f"{name}:{i}": row
        for name in files
        for i, row in enumerate(shared_rows("real_photos", f"{name}.jsonl"), 1)
    }
    written = records(tmp_path / "eval")
    assert [r["example"]["id"] for r in written] == [f"{n}:{i}" for n in files for i in range(1, 7)]
    for record in written:
        row, example = rows[record["example"]["id"]], record["example"]
        assert record["failure"] is None
        assert example["picture_size"] == [row["width"], row["height"]]
        assert list(Image.open(example["image"]).size) == example["picture_size"]
        drawn = [in_pixels(box, row) for box in example["boxes"]]
        assert drawn == [pytest.approx(box, abs=0.01) for box in row["bboxs"]]

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'class="og-key">([^<]+)<.*?viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', page, re.DOTALL)
    assert len(shown) == 12
    for key, width, height, svg in shown:
        row = rows[key]
        assert (int(width), int(height)) == (row["width"], row["height"])
        edges = re.findall(
            r'og-truth-line" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg
        )
        corners = [[x, y, x + w, y + h] for x, y, w, h in (map(float, e) for e in edges)]
        assert corners == [pytest.approx(box, abs=0.02) for box in row["bboxs"]]
    # The photo itself stands in the page, in the shape its boxes are drawn on.
    photos = pictures_of(page)
    assert len(photos) == 12
    for photo, (_, width, height, _) in zip(photos, shown, strict=True):
        assert photo.width / photo.height == pytest.approx(int(width) / int(height), rel=0.01)


def in_pixels(box: list[float], row: dict[str, Any]) -> list[float]:
    left, top, right, bottom = box
    return [left * row["width"], top * row["height"], right * row["width"], bottom * row["height"]]


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "rows", "pictures", "problems"),
    [
        ("vsr_val", 288, 247, []),
        ("tallyqa_val", 491, 465, []),
        ("gqa_val", 509, 501, ["gqa_val.jsonl:387: bboxs[0]"]),
        ("mathvista_mini_val", 1000, 1000, []),
        ("mme_val", 240, 240, []),
        ("ovd_position_val", 2146, 2107, []),
    ],
)
def test_data_check_prints_the_rows_of_the_released_files_and_the_one_bad_box(
    name: str, rows: int, pictures: int, problems: list[str], tmp_path: Path
) -> None:
    printed = run("data", "check", shared("grit_val", f"{name}.jsonl"))
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert f"{name}.jsonl: {rows} rows, {pictures} pictures" in printed.stdout
    found = [line for line in printed.stdout.splitlines() if line.startswith(("  error: ", "  warning: "))]
    assert len(found) == len(problems)
    assert all(problem in line for problem, line in zip(problems, found, strict=True))

    with_folder = run("data", "check", shared("grit_val", f"{name}.jsonl"), "--images", tmp_path)
    assert with_folder.exit_code == 2
    assert f"missing pictures: {pictures}\n" in with_folder.stdout
