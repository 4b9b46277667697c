"""Bad input of every kind, through the real command: one clear error, exit code 2, nothing written and nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fresh import printed_by
from PIL import Image
from typer.testing import CliRunner, Result

from opengrit.cli.app import app
from opengrit.models.resolve import resolve

MODEL = "tiny-qwen2.5-vl"
ROW = {
    "question": "How many dogs are there?",
    "answer": 1,
    "image": "a.png",
    "width": 40,
    "height": 30,
    "bboxs": [[1, 1, 9, 9]],
}
RECIPE = f"""\
model: {MODEL}
data:
  train: [{{file: FILE, images: pictures}}]
train:
  max_steps: 1
  num_generations: 2
  questions_per_step: 1
  per_device_train_batch_size: 2
  max_completion_length: 8
  beta: 0
  gradient_checkpointing: false
  bf16: false
  save_steps: null
  eval_steps: null
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def tree(folder: Path) -> dict[str, str]:
    """Every path below the folder with the hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def refused(*arguments: object) -> str:
    """The one error of a command that exits with 2, prints nothing else, and leaves the working folder as it was."""
    before = tree(Path.cwd())
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), (result.stdout, result.stderr, result.exception)
    warned, _, _ = result.stderr.partition("error: ")
    assert warned == "" or warned.endswith("\n")  # of a run that an earlier version wrote
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert tree(Path.cwd()) == before
    return result.stderr


def rows(name: str, *lines: dict[str, Any] | str) -> Path:
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file = Path(f"{name}.jsonl")
    file.write_text("".join(line + "\n" for line in written), encoding="utf-8")
    return file


def recipe(data: Path | str) -> Path:
    file = Path("recipe.yaml")
    file.write_text(RECIPE.replace("FILE", str(data)), encoding="utf-8")
    return file


def png_header_of(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good.jsonl and pictures, good and bad, as the working folder."""
    folder = tmp_path / "work"
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(pictures / "a.png")
    Image.new("RGB", (40, 30), "blue").save(pictures / "b.png")
    Image.effect_noise((60, 60), 50).convert("RGB").save(pictures / "whole.png")
    (pictures / "torn.png").write_bytes((pictures / "whole.png").read_bytes()[:2000])
    (pictures / "bomb.png").write_bytes(png_header_of(50_000, 50_000))
    (pictures / "text.png").write_text("no picture")
    Image.new("RGB", (2, 1000)).save(pictures / "thin.png")
    Image.new("RGB", (40, 30)).save(folder / "outside.png")
    (pictures / "link.png").symlink_to(folder / "outside.png")
    monkeypatch.chdir(folder)
    rows("good", ROW, ROW | {"image": "b.png"})
    return folder


BAD_ROWS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "a missing picture": (ROW | {"image": "gone.png"}, "pictures/gone.png"),
    "a truncated PNG": (ROW | {"image": "torn.png"}, "damaged (image file is truncated): pictures/torn.png"),
    "a header bomb": (
        ROW | {"image": "bomb.png", "width": 50_000, "height": 50_000},
        "at most 80000000 pixels",
    ),
    "a header bomb without its size": (
        {"question": "How many?", "answer": 1, "image": "bomb.png"},
        "at most 80000000 pixels",
    ),
    "no picture at all": (ROW | {"image": "text.png"}, "this is not: pictures/text.png"),
    "a path that climbs": (ROW | {"image": "../outside.png"}, "got '../outside.png' with \"..\""),
    "an absolute path": (ROW | {"image": "/etc/hostname"}, "got the absolute path '/etc/hostname'"),
    "a link that leads out": (ROW | {"image": "link.png"}, "got 'link.png', which leads outside"),
    "a name too long": (ROW | {"image": "c" * 300 + ".png"}, "c" * 100),
    "a broken line": ('{"question": "How', "bad.jsonl:2: a row is one JSON object, this line is not JSON"),
    "a NaN box": (
        json.dumps(ROW | {"bboxs": [[float("nan"), 1, 9, 9]]}),
        "bad.jsonl:2: bboxs[0]: a box holds four finite numbers",
    ),
    "an answer of the wrong type": (ROW | {"answer": None}, "bad.jsonl:2: answer: must be a string"),
}


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_refused_before_a_model_loads_or_a_file_is_written(kind: str, command: str) -> None:
    row, said = BAD_ROWS[kind]
    data = rows("bad", ROW, row)
    if command == "train":
        assert said in refused("train", recipe(data), "--out", "run")
    else:
        assert said in refused(
            "eval", "--model", MODEL, "--data", data, "--images", "pictures", "--out", "run"
        )


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_data_check_finds_the_one_bad_row_and_nothing_else(kind: str, working_folder: Path) -> None:
    row, said = BAD_ROWS[kind]
    data = rows("bad", ROW, row)
    before = tree(working_folder)
    result = run("data", "check", data, "--images", "pictures")
    assert result.exit_code == 2
    assert result.stderr == ""
    assert said in result.stdout
    titles = ("problems: ", "missing pictures: ", "unreadable pictures: ")
    assert [line for line in result.stdout.splitlines() if line.startswith(titles)] in [
        [title + "1"] for title in titles
    ]
    assert tree(working_folder) == before


def test_every_damaged_picture_is_named_in_one_message() -> None:
    data = rows("bad", ROW, ROW | {"image": "torn.png"}, ROW | {"image": "text.png"})
    message = refused("eval", "--model", MODEL, "--data", data, "--images", "pictures", "--out", "run")
    assert message.startswith("error: every row's picture must open, 2 of 3 do not:\n")
    assert "pictures/torn.png" in message
    assert "pictures/text.png" in message


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("none.png", "there is none at none.png"),
        ("pictures", "--draw names a folder where many"),
        ("good.jsonl", "this is not: good.jsonl"),
        ("pictures/torn.png", "damaged"),
        ("pictures/bomb.png", "at most 80000000 pixels"),
        ("pictures/thin.png", "2 x 1000 pixels does not (absolute aspect ratio must be smaller than 200"),
        ("p" * 300 + ".png", "check the name"),
    ],
)
def test_ask_refuses_what_is_no_picture(picture: str, said: str) -> None:
    assert said in refused("ask", picture, "How many dogs are there?", "--draw", "out.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "--draw", "out.png"), "a question is non-empty text, got ''"),
        (("\udcff", "--draw", "out.png"), "a question is non-empty text"),
        (("<|image_pad|>",), "must not contain the model's picture token '<|image_pad|>'"),
        (("Why?", "--strategy", "groundd"), "is one of direct, grounded, grounded-icl, sft, got 'groundd'"),
        (("Why?", "--draw", "out.gif"), "--draw writes PNG or JPEG, got out.gif"),
        (("Why?", "--draw", "pictures/b.png"), "nothing is overwritten, pictures/b.png exists"),
        (("Why?", "--draw", "nowhere/out.png"), "nowhere is none; make it first"),
    ],
)
def test_ask_refuses_options_that_cannot_work(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("ask", "pictures/a.png", *arguments)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("max_steps", "max_step"), "recipe.yaml:5: train.max_step is not a key of a recipe; did you mean max_steps?"),
        (("data:", "dta:"), "recipe.yaml:2: dta is not a key of a recipe; did you mean data?"),
        (("max_steps: 1", "max_steps: [1"), "recipe.yaml:6: a recipe is YAML, this is not (expected ',' or ']', but got ':'); fix that line"),
        (("bf16: false", "bf16: false\n  bf16: true"), "train.bf16 is on line 12 and on line 13"),
        (("beta: 0", "beta: .nan"), "train.beta"),
        (("step: 1\n  per_device_train_batch_size: 2", "step: 3\n  per_device_train_batch_size: 6"), "data.train has 2 rows"),
        (("train:\n", "lora: {target_modules: [q_prj]}\ntrain:\n"), "has no 'q_prj'; its linear layers are"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_and_the_key_that_was_meant_is_named(
    changed: tuple[str, str], said: str
) -> None:
    file = recipe("good.jsonl")
    old, new = changed
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert said in refused("train", file, "--out", "run")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed here")
def test_an_optimizer_that_is_not_installed_is_refused_before_the_run_starts() -> None:
    said = refused("train", recipe("good.jsonl"), "--out", "run", "--set", "train.optim=adamw_8bit")
    assert "needs bitsandbytes, which is not installed; install opengrit[qlora]" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.max_step=3", "--set train.max_step: train.max_step is not a key of a recipe; did you mean max_steps?"),
        ("max_steps=3", "did you mean train.max_steps?"),
        ("max_steps", "--set takes key=value, got 'max_steps'"),
        ("train.max_steps=many", "got 'many'"),
        ("train.max_steps=[", "takes a YAML value"),
        ("data.train.9.file=x.jsonl", "a list of 1 is indexed from 0, got '9'"),
        ("data.train=[stickers/trian20]", "a sticker set is one of train20, count, spatial, unseen, compose, compose20, spatial20, dev, got 'trian20'"),
        ("data.eval=[good.jsonl]", "every row's picture must exist"),
        ("model.max_pixels=1", "max_pixels at least 28 x 28 = 784"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_refused_and_named(override: str, said: str) -> None:
    extra = ("--set", "train.eval_steps=1") if override.startswith("data.eval") else ()
    assert said in refused("train", recipe("good.jsonl"), "--out", "run", "--set", override, *extra)


@pytest.mark.parametrize("file", ["none.yaml", "pictures", "pictures/a.png"])
def test_a_recipe_that_is_no_text_file_is_refused(file: str) -> None:
    assert f"a recipe is a readable YAML file or the name of a packaged recipe, {file} is not" in refused(
        "train", file, "--out", "run"
    )


def broken_models() -> dict[str, tuple[Callable[[Path], object] | None, str]]:
    def lose_a_weight(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights.pop(next(name for name in sorted(weights) if name.endswith("layernorm.weight")))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def reshape_a_weight(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(weights) if name.endswith("layernorm.weight"))
        weights[name] = weights[name].repeat(2)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def halve_the_weights(folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])

    return {
        "unpackaged": (None, "'unpackaged' is not; check the spelling"),
        "nowhere/at/all": (None, "'nowhere/at/all' is not; check the spelling"),
        "pictures": (None, "pictures holds neither; name the folder that save_pretrained wrote"),
        "half": (halve_the_weights, "of half is not (Error while deserializing header"),
        "missing": (lose_a_weight, "in their shapes, that of missing does not (missing 1: "),
        "reshaped": (reshape_a_weight, "in their shapes, that of reshaped does not (of another shape 1: "),
        "weightless": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        "toneless": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "AutoProcessor, toneless does not"),
        "stranger": (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "got model_type 'bert'"),
        "garbled": (lambda folder: (folder / "config.json").write_text("{"), "is not a valid JSON file"),
        "adapter": (lambda folder: (folder / "adapter_config.json").write_text("{"), "an adapter names its base model"),
    }  # fmt: skip


@pytest.mark.parametrize("name", broken_models())
def test_a_model_that_cannot_be_had_whole_is_refused_by_every_command(name: str) -> None:
    spoil, said = broken_models()[name]
    if spoil is not None:
        shutil.copytree(resolve(MODEL), name)
        spoil(Path(name))
    assert said in refused("ask", "pictures/a.png", "Why?", "--model", name, "--draw", "out.png")
    data = ("--data", "good.jsonl", "--images", "pictures")
    assert said in refused("eval", "--model", name, *data, "--out", "run")
    assert said in refused("train", recipe("good.jsonl"), "--set", f"model={name}", "--out", "run")


@pytest.mark.slow
def test_a_hub_model_that_is_not_downloaded_is_refused_offline() -> None:
    before = tree(Path.cwd())
    data = ["--data", "good.jsonl", "--images", "pictures", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "opengrit", "eval", "--model", "owner/not-downloaded", *data],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: a model must load through transformers' AutoConfig, owner/not-downloaded"
    )
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert done.stderr.count("\n") == 1
    assert tree(Path.cwd()) == before


def test_an_adapter_without_its_weights_is_refused() -> None:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": MODEL}))
    said = refused("ask", "pictures/a.png", "Why?", "--model", "adapter")
    assert "an adapter's folder holds adapter_model.safetensors, adapter does not" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "stickers/cuont"), "a sticker set is one of train20, count, spatial, unseen, compose, compose20, spatial20, dev, got 'cuont'"),
        (("--data", "pictures"), "a folder or pattern of data files needs at least one of .csv, .tsv, .xlsx, .parquet, .json, .jsonl, pictures has"),
        (("--data", "none.jsonl"), "none.jsonl is not (No such file or directory)"),
        (("--data", "folder.jsonl"), ".json, .jsonl, folder.jsonl has none"),
        (("--data", "empty.jsonl"), "empty.jsonl is empty"),
        (("--data", "stickers/count", "--images", "pictures"), "leave --images out"),
        (("--data", "good.jsonl", "--images", "nowhere"), "images must be an existing folder, got nowhere"),
        (("--data", "good.jsonl", "--images", "good.jsonl"), "images must be an existing folder"),
        (("--data", "good.jsonl", "--images", "pictures", "--images", "pictures"), "got 2 for 1 files"),
        (("--data", "good.jsonl", "--data", "good.jsonl", "--images", "pictures"), "'good:1' occurs more than once"),
        (("--data", "good.jsonl", "--images", "pictures", "--strategy", "groundd"), "strategy: input should be 'direct'"),
        (("--data", "good.jsonl", "--images", "pictures", "--frame", "px"), "model.frame: input should be 'pixels'"),
        (("--data", "good.jsonl", "--images", "pictures", "--samples", "2"), "error: samples is 1 if temperature is 0"),
        (("--data", "good.jsonl", "--images", "pictures", "--temperature", "inf"), "temperature"),
        (("--data", "good.jsonl", "--images", "pictures", "--max-pixels", "1"), "at least 28 x 28 = 784"),
    ],
)  # fmt: skip
def test_eval_refuses_data_and_options_that_cannot_work(arguments: tuple[str, ...], said: str) -> None:
    Path("folder.jsonl").mkdir()
    Path("empty.jsonl").touch()
    assert said in refused("eval", "--model", MODEL, *arguments, "--out", "run")


@pytest.mark.parametrize(
    "out",
    ["pictures", "good.jsonl", "good.jsonl/run", "r" * 300],
    ids=["full", "file", "below a file", "long"],
)
def test_a_run_never_goes_where_something_else_is(out: str) -> None:
    assert "error: a " in refused("train", recipe("good.jsonl"), "--out", out)
    data = ("--data", "good.jsonl", "--images", "pictures")
    assert "error: a " in refused("eval", "--model", MODEL, *data, "--out", out)


def test_resuming_needs_a_run_and_its_own_recipe() -> None:
    file = recipe("good.jsonl")
    assert "--resume needs a run to resume, run holds none" in refused(
        "train", file, "--out", "run", "--resume"
    )
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("model: another\n")
    assert "a run resumes with its own recipe" in refused("train", file, "--out", "run", "--resume")
    data = ("--data", "good.jsonl", "--images", "pictures")
    assert "a run resumes with its own recipe" in refused("eval", "--model", MODEL, *data, "--out", "run")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "a run folder holds recipe.yaml, run does not"),
        ({"recipe.yaml": "model: a"}, "run has only a recipe; name the --out folder"),
        ({"recipe.yaml": ": :\n- x"}, "a run's recipe is YAML, run/recipe.yaml is not"),
        ({"recipe.yaml": "evaluate: {}", "records.jsonl": "junk\n"}, "line 1 of run/records.jsonl"),
        ({"recipe.yaml": "evaluate: {}", "records.jsonl": '{"id": 3}\n'}, "run/records.jsonl:1: a record has the field"),
        ({"recipe.yaml": "evaluate: {}", "environment.json": "{"}, "a run's environment is JSON"),
    ],
)  # fmt: skip
def test_a_report_of_what_is_no_run_is_refused(files: dict[str, str], said: str) -> None:
    Path("run").mkdir()
    for name, text in files.items():
        Path("run", name).write_text(text)
    message = refused("report", "run", "--out", "report.html")
    assert said in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("out", ["report.txt", "folder.html", "good.jsonl/report.html"])
def test_a_report_goes_into_an_html_file_and_nowhere_else(out: str) -> None:
    Path("run").mkdir()
    Path("folder.html").mkdir()
    Path("run/recipe.yaml").write_text("evaluate: {}")
    Path("run/records.jsonl").write_text("")
    assert out.split("/")[0] in refused("report", "run", "--out", out)


def test_stickers_are_not_made_below_a_file() -> None:
    said = refused("data", "make", "stickers", "--out", "good.jsonl", "--set", "train20")
    assert "good.jsonl/images is not (Not a directory)" in said


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENGRIT_CACHE", "good.jsonl")
    said = refused("eval", "--model", MODEL, "--data", "stickers/train20", "--out", "run")
    assert "set OPENGRIT_CACHE to a writable folder" in said


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of the superuser, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder nobody may look into, within a working folder everybody may; what the commands import is imported."""
    import opengrit.evaluation.run
    import opengrit.reports
    import opengrit.sampling.transformers_engine
    import opengrit.training.run  # noqa: F401

    if os.geteuid() == 0:
        for folder in (working_folder, *working_folder.parents[:-2]):
            folder.chmod(folder.stat().st_mode | 0o055)
    folder = working_folder / "locked"
    shutil.copytree("pictures", folder, symlinks=True)
    shutil.copy("good.jsonl", folder)
    (folder / "recipe.yaml").write_text(RECIPE.replace("FILE", "good.jsonl"))
    folder.chmod(0o000)
    yield folder
    folder.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "check", "locked/good.jsonl"),
        ("eval", "--model", MODEL, "--data", "locked/good.jsonl", "--out", "run"),
        ("eval", "--model", MODEL, "--data", "good.jsonl", "--images", "locked", "--out", "run"),
        ("eval", "--model", MODEL, "--data", "good.jsonl", "--images", "pictures", "--out", "locked/run"),
        ("eval", "--model", MODEL, "--data", "good.jsonl", "--images", "pictures", "--out", "locked"),
        ("train", "locked/recipe.yaml", "--out", "run"),
        ("train", "recipe.yaml", "--out", "locked/run"),
        ("train", "recipe.yaml", "--out", "locked/run", "--resume"),
        ("train", "recipe.yaml", "--out", "run", "--set", "model=locked"),
        ("report", "locked"),
        ("ask", "locked/a.png", "Why?"),
        ("ask", "pictures/a.png", "Why?", "--draw", "locked/out.png"),
    ],
    ids=" ".join,
)
def test_what_may_not_be_read_or_written_is_one_error(locked: Path, arguments: tuple[str, ...]) -> None:
    recipe("good.jsonl")
    with nobody():
        result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), (result.stdout, result.stderr, result.exception)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "locked" in result.stderr
    assert not Path("run").exists()


@pytest.mark.slow
def test_the_installed_command_says_the_same_without_a_traceback() -> None:
    before = tree(Path.cwd())
    commands = (
        ["eval", "--model", MODEL, "--data", "none.jsonl", "--out", "run"],
        ["ask", "pictures/bomb.png", "Why?"],
        ["report", "pictures"],
    )
    for done in printed_by(*commands):
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert tree(Path.cwd()) == before


# -- what goes wrong in the middle ------------------------------------------------------------------------------


@contextmanager
def removing(picture: Path, *, when: Path) -> Iterator[None]:
    """Takes a picture away as soon as the file `when` holds a whole line."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if when.is_file() and b"\n" in when.read_bytes():
                picture.unlink()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def records(run_folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run_folder, "records.jsonl").read_text().splitlines()]


def test_a_picture_that_vanishes_while_a_model_is_asked_is_a_failure_and_no_wrong_answer() -> None:
    asked = [ROW | {"question": f"How many dogs are there, {n}?"} for n in range(12)]
    rows("good", *asked, ROW | {"image": "b.png"})
    with removing(Path("pictures/b.png"), when=Path("run/records.jsonl")):
        data = ("--data", "good.jsonl", "--images", "pictures", "--batch-size", 1, "--max-new-tokens", 12)
        result = run("eval", "--model", MODEL, *data, "--out", "run")
    assert result.exit_code == 0
    *others, last = records("run")
    assert [r["failure"] for r in others] == [None] * 12
    assert "pictures/b.png is not (No such file or directory)" in last["failure"]
    assert last["verdict"] == {"unjudged": last["failure"]}
    assert last["score"]["total"] is None
    assert "1 of 13" in result.stdout


@pytest.mark.trains
def test_a_picture_that_vanishes_while_a_model_trains_teaches_nothing_and_is_recorded() -> None:
    file = recipe("good.jsonl")
    overrides = {"max_steps": 20, "questions_per_step": 2, "per_device_train_batch_size": 4}
    sets = [x for key, value in overrides.items() for x in ("--set", f"train.{key}={value}")]
    with removing(Path("pictures/b.png"), when=Path("run/metrics.jsonl")):
        result = run("train", file, *sets, "--out", "run", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert (Path("run/final") / "model.safetensors").is_file()
    written = records("run")
    assert len(written) == 20 * 2 * 2
    failed = [r for r in written if r["failure"] is not None]
    assert failed
    assert {r["example"]["image"] for r in failed} == {"pictures/b.png"}
    assert {(r["advantage"], r["score"]["total"]) for r in failed} == {(0.0, None)}
    assert all(r["failure"] is None for r in written if r["example"]["image"] == "pictures/a.png")
    metrics = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["failed"] == 0.5
