"""A training notices rows and pictures that changed, state that is lost and lines that are garbage, and says what it resumes over."""

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
    EDITS,
    SAID,
    command,
    data_set,
    logged,
)
from small_runs import small_recipe

# -- train and sft ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, recipes that learn from it, and what two steps of each gave, without its final model."""
    folder = tmp_path_factory.mktemp("trained")
    path = data_set(folder / "data")
    recipe = yaml.safe_load(small_recipe(folder, max_steps=2).read_text())
    source = {"file": str(path), "images": str(path.parent / "pictures")}
    grpo = recipe | {"data": {"train": [source], "eval": [source]}}
    sft = {"model": recipe["model"], "data": {"train": [source]}, "strategy": "grounded"}
    sft["sft"] = {
        "max_steps": 2,
        "rows_per_step": 2,
        "per_device_train_batch_size": 2,
        "save_steps": 1,
        "bf16": False,
    }
    for name, wanted in (("train", grpo), ("sft", sft)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(wanted))
        command(name, folder / f"{name}.yaml", "--out", folder / name)
        shutil.move(folder / name / "final", folder / f"{name}-final")
    shutil.copytree(path.parent, folder / "kept")
    return folder


@pytest.fixture
def edited(trained: Path) -> Iterator[Path]:
    """The rows, as they were before and as they are again after a test."""
    yield trained / "data" / "rows.jsonl"
    shutil.rmtree(trained / "data")
    shutil.copytree(trained / "kept", trained / "data")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("way", ["train", "sft"])
def test_a_training_notices(way: str, edit: str, trained: Path, edited: Path, tmp_path: Path, caplog) -> None:
    out = shutil.copytree(trained / way, tmp_path / "run")
    EDITS[edit](edited)
    again = [way, trained / f"{way}.yaml", "--out", out, "--resume"]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    if edit == "name":
        with caplog.at_level("WARNING", logger="opengrit"):
            command(*again)
        assert re.search(f"data train: {SAID[edit]}", logged(caplog))
        assert (out / "final" / "model.safetensors").read_bytes() == (
            trained / f"{way}-final" / "model.safetensors"
        ).read_bytes()
        return
    said = command(*again, code=2)
    assert re.search(f"data train: {SAID[edit]}", said), said
    assert "resume anyway with --resume-anyway" in said
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    if way == "train":
        assert re.search(f"data eval {re.escape(str(edited))}: {SAID[edit]}", said)


def test_a_training_continues_over_edited_data_when_it_is_told_to_and_says_so(
    trained: Path, edited: Path, tmp_path: Path, caplog
) -> None:
    out = shutil.copytree(trained / "train", tmp_path / "run")
    EDITS["answer"](edited)
    again = ["train", trained / "train.yaml", "--out", out]
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume-anyway")
    assert re.search(f"resumed anyway: data train: {SAID['answer']}", logged(caplog))
    noted = json.loads((out / "environment.2.json").read_text())["resumed_anyway"]
    assert any(re.search(f"data train: {SAID['answer']}", one) for one in noted)
    # From here on these are the run's rows.
    shutil.rmtree(out / "final")
    command(*again, "--resume")
    caplog.clear()
    EDITS["box"](edited)
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume")  # it is finished: nothing is trained, and the change is told
    assert re.search(f"was trained on other data: data train: {SAID['box']}", logged(caplog))


def test_a_checkpoint_knows_its_data_where_the_file_is_gone(
    trained: Path, edited: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(trained / "sft", tmp_path / "run")
    (out / "data.jsonl").unlink()
    EDITS["picture"](edited)
    said = command("sft", trained / "sft.yaml", "--out", out, "--resume", code=2)
    assert "data train: rows or pictures changed since the checkpoint was written" in said


def test_a_checkpoint_names_no_folder_of_this_machine_in_what_it_says_of_its_data(trained: Path) -> None:
    for sidecar in trained.glob("*/checkpoints/*/checkpoint.json"):
        assert str(trained) not in json.dumps(list(json.loads(sidecar.read_text())["data"].values()))


@pytest.mark.parametrize(
    ("lost", "meaning"),
    [
        (("optimizer.pt",), "optimizer.pt is missing: the optimizer state is lost"),
        (("scheduler.pt",), "scheduler.pt is missing: .*learning rate schedule start from the beginning"),
        (("rng_state.pth",), "rng_state.pth is missing: random numbers start from the seed"),
        (("optimizer.pt", "scheduler.pt", "checkpoint.json"), "optimizer.pt is missing: .*scheduler.pt is missing: "),
    ],
)  # fmt: skip
def test_a_resume_without_a_part_of_the_state_says_which_and_what_that_means(
    lost: tuple[str, ...], meaning: str, trained: Path, tmp_path: Path, caplog
) -> None:
    out = shutil.copytree(trained / "sft", tmp_path / "run")
    shutil.rmtree(out / "checkpoints" / "step-000002")
    for name in lost:
        (out / "checkpoints" / "step-000001" / name).unlink()
    again = ["sft", trained / "sft.yaml", "--out", out]
    said = command(*again, "--resume", code=2)
    assert all(name in said for name in lost[:1])
    assert "--resume-anyway" in said
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume-anyway")
    assert re.search(f"resumed anyway: {meaning}", logged(caplog))
    assert (out / "final").is_dir()


@pytest.mark.parametrize(
    ("way", "line"), [("train", "garbage"), ("train", "[1]"), ("train", ""), ("sft", "\x00\x00"), ("sft", "garbage")]
)  # fmt: skip
def test_a_line_of_garbage_stops_a_resume(way: str, line: str, trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained / way, tmp_path / "run")
    name = "records.jsonl" if way == "train" else "metrics.jsonl"
    first, rest = (out / name).read_text().split("\n", 1)
    (out / name).write_text(f"{first}\n{line}\n{rest}")
    again = [way, trained / f"{way}.yaml", "--out", out, "--resume"]
    said = command(*again, code=2)
    assert re.search(rf"line 2 of \S+{name} is not.*remove that line", said)
    (out / name).write_text(f"{first}\n{rest}")
    if line == "garbage":
        command(*again)


@pytest.mark.parametrize("edit", ["answer", "picture"])
def test_a_table_notices_that_what_it_learned_from_changed(
    edit: str, trained: Path, edited: Path, tmp_path: Path
) -> None:
    source = {"file": str(edited), "images": str(edited.parent / "pictures")}
    other = data_set(tmp_path / "asked")
    sft = yaml.safe_load((trained / "sft.yaml").read_text())["sft"]
    recipe = {
        "models": [str(trained / "base")], "data": [{"file": str(other), "images": str(other.parent / "pictures")}],
        "train_data": [source], "ways": ["sft"], "seeds": [0], "sft": sft | {"max_steps": 1},
        "eval": {"max_completion_length": 4},
    }  # fmt: skip
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(recipe))
    again = ["table", tmp_path / "table.yaml", "--out", tmp_path / "table", "--quiet"]
    command(*again)
    EDITS[edit](edited)
    said = command(*again, code=2)
    assert re.search(f"data train: {SAID[edit]}", said)
    assert "--judge-again" not in said


def test_a_line_that_is_no_rollout_stops_a_resume(trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained / "train", tmp_path / "run")
    whole = (out / "records.jsonl").read_text()
    (out / "records.jsonl").write_text('{"id": "1/e0#0"}\n' + whole)
    again = ["train", trained / "train.yaml", "--out", out, "--resume"]
    assert re.search(
        r"line 1 of \S+ does not \(it has no 'example'\); remove that line", command(*again, code=2)
    )
    (out / "records.jsonl").write_text(
        whole + '{"id": "torn'
    )  # a crash leaves such a line, and it is no garbage
    command(*again)


def test_a_training_notices_that_its_base_model_is_another_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    out = shutil.copytree(trained / "sft", tmp_path / "run")
    recipe = yaml.safe_load((trained / "sft.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "base", "base")
    (out / "recipe.yaml").write_text((out / "recipe.yaml").read_text().replace(recipe["model"], "base"))
    for sidecar in out.glob("checkpoints/*/checkpoint.json"):
        value = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps(value | {"recipe": (out / "recipe.yaml").read_text()}))
    Path("sft.yaml").write_text(yaml.safe_dump(recipe | {"model": "base"}))
    again = ["sft", "sft.yaml", "--out", out]
    copied = shutil.copytree(out, tmp_path / "copied")
    command(*again[:-1], copied, "--resume")  # the same model in another place
    shutil.rmtree("base")
    tiny_random.save(tiny_random.talkative(tiny_random.qwen(seed=5)), Path("base"))
    said = command(*again, "--resume", code=2)
    assert re.search(
        r"model: the folder \S+/base \(SHA-256 \w+\) then, the folder \S+/base \(SHA-256 \w+\) now", said
    )
    with caplog.at_level("WARNING", logger="opengrit"):
        command(*again, "--resume-anyway")
    assert "resumed anyway: model: the folder" in logged(caplog)
