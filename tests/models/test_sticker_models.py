"""The packaged models say that they know stickers only, once, where they are given other pictures."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_random
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Size
from opengrit.core.types import Example
from opengrit.data import stickers, write
from opengrit.inference.grounder import Grounder
from opengrit.models.resolve import packaged_names, resolve
from opengrit.models.sticker_models import knows_stickers_only, of_another_world, what_it_knows
from opengrit.serving.app import ServeSettings, build_app
from serving import Speaking, grounder, running

MODEL = "tiny-qwen2.5-vl"
SAID = f"{MODEL} knows emoji stickers only"


def photo(folder: Path) -> Path:
    path = folder / "park.jpg"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (200, 140), "green").save(path)
    return path


def row(folder: Path) -> Path:
    """A row about a photo."""
    image = photo(folder)
    example = Example("a", "How many birds are there?", "2", str(image), "birds", Size(200, 140))
    write([example], folder / "rows.jsonl", images=folder)
    return folder / "rows.jsonl"


def test_packaged_models_and_copies_of_them_are_known_by_their_vocabulary(tmp_path):
    for name in packaged_names():
        assert knows_stickers_only(name)
    shutil.copytree(resolve(MODEL), tmp_path / "trained" / "final")
    assert knows_stickers_only(str(tmp_path / "trained"))
    tiny_random.save(tiny_random.qwen(), tmp_path / "other")
    assert not knows_stickers_only(str(tmp_path / "other"))
    assert not knows_stickers_only("Qwen/Qwen2.5-VL-3B-Instruct")


def test_a_picture_is_of_sticker_world_by_its_set_or_by_its_size():
    known = stickers.examples("unseen") + stickers.examples("train20")
    assert of_another_world(known) == []
    ours = Example("a", "?", "2", "a.png", "mine", Size(112, 112))
    enlarged = Example("b", "?", "2", "b.png", "stickers/count", Size(560, 560))
    other = Example("c", "?", "2", "c.png", "mine", Size(112, 113))
    assert of_another_world([ours, enlarged, other]) == [other]


def test_an_asked_model_says_it_once_and_only_where_it_matters(tmp_path, caplog):
    own = grounder()
    told = Grounder(own.sampler, frame=own.frame, model=MODEL, stickers_only=own.stickers_only)
    with caplog.at_level(logging.WARNING):
        told.ask(stickers.examples("train20")[0].image, "How many dogs are there?", max_new_tokens=2)
        assert caplog.messages == []
        told.ask(photo(tmp_path), "How many dogs are there?", max_new_tokens=2)
        told.ask_many([(photo(tmp_path), "Is it a dog?")] * 2, max_new_tokens=2, quiet=True)
    [message] = caplog.messages
    assert SAID in message
    assert "200 x 140" in message
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in message


def evaluate(rows: Path, out: Path) -> list[str]:
    return ["eval", "--model", MODEL, "--data", str(rows), "--out", str(out), "--max-new-tokens", "2"]


SMALL = {
    "train.max_steps": 1, "train.num_generations": 2, "train.questions_per_step": 1,
    "train.per_device_train_batch_size": 2, "train.max_completion_length": 2, "train.save_steps": "null",
    "data.eval": "[]",
}  # fmt: skip


def train(rows: Path, out: Path) -> list[str]:
    changes: dict[str, Any] = SMALL | {"data.train": f"[{{file: {rows}, images: {rows.parent}}}]"}
    changes["rewards"] = "answer_only"
    return ["train", "demo", "--out", str(out), "--quiet"] + [
        part for key, value in changes.items() for part in ("--set", f"{key}={value}")
    ]


@pytest.mark.parametrize("command", [evaluate, train])
def test_commands_say_it_once_with_the_number_of_rows(command, tmp_path):
    result = CliRunner().invoke(app, command(row(tmp_path / "photos"), tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert result.stderr.count(SAID) == 1
    assert "here: 1 row, the first with" in result.stderr


def test_a_server_says_it_among_its_models():
    engine = Speaking("2")
    settings = ServeSettings(only_stickers=frozenset([engine.name]))
    engines = {engine.name: engine}
    with running(build_app(engines, settings), engines) as server, server.client() as client:
        assert client.get("/v1/models/speaking").json()["note"] == what_it_knows("speaking")


def test_the_server_of_a_packaged_model_has_that_note():
    from opengrit.cli.serve import _only_stickers

    assert _only_stickers([None, "Qwen/Qwen2.5-VL-3B-Instruct"], ["mine", "other"]) == {"mine"}
