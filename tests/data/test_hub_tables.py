"""A data set of the hub is a table, through the real client; a hub on the loopback stands in for the public one."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_hub import data_hub
from PIL import Image

from opengrit.core.errors import DataError
from opengrit.data import load
from opengrit.data.tables.arrow import require_reachable

IMPORTS = """
import sys
from opengrit.cli.app import app
from opengrit.core.errors import DataError
from opengrit.data.sources import load_examples
from opengrit.recipes.training_recipe import parse_recipe

recipe = parse_recipe('''
model: a
data: {train: [{hub: "me/birds:test", columns: {picture: Picture}}, "hub:me/birds"]}
''')
for source in recipe.data.train:
    print([one.answer for one in load_examples(source.spec, source.images, table=source.table)])
for spec in ("hub:me/none", "hub:me/birds:validation"):
    try:
        load_examples(spec)
    except DataError as error:
        print("error:", error)
app(["data", "import", "me/birds", "--out", sys.argv[1]])
"""


def parquet(answers: list[int]) -> bytes:
    """A file as `push_to_hub` writes it: pictures inside, class labels as numbers."""
    import datasets

    pictures = []
    for answer in answers:
        written = io.BytesIO()
        Image.new("RGB", (40, 30), (answer, 0, 0)).save(written, "PNG")
        pictures.append({"bytes": written.getvalue(), "path": f"bird-{answer}.png"})
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "question": datasets.Value("string"),
            "answer": datasets.ClassLabel(names=["none", "one", "two"]),
        }
    )
    columns = {"picture": pictures, "question": ["How many birds?"] * len(answers), "answer": answers}
    out = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(out)
    return out.getvalue()


def test_a_data_set_of_the_hub_is_read_imported_and_missed_by_name(tmp_path: Path) -> None:
    files = {
        "data/train-00000-of-00001.parquet": parquet([2, 1, 0]),
        "data/test-00000-of-00001.parquet": parquet([1, 2]),
    }
    with data_hub({"me/birds": files}) as address:
        found = subprocess.run(
            [sys.executable, "-c", IMPORTS, str(tmp_path / "birds.jsonl")],
            env={
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path / "hub"),
                "OPENGRIT_CACHE": str(tmp_path / "cache"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert found.returncode == 0, found.stderr
    said = found.stdout.splitlines()
    assert said[:2] == ["['one', 'two']", "['two', 'one', 'none']"]
    assert said[2].startswith("error: a hub data set is named owner/name:split")
    assert "hub:me/none" in said[2]
    assert "hub:me/birds:validation" in said[3]
    rows = load(tmp_path / "birds.jsonl", images=tmp_path / "birds-pictures")
    assert [(one.answer, Path(one.image).name) for one in rows] == [
        ("two", "bird-2.png"),
        ("one", "bird-1.png"),
        ("none", "bird-0.png"),
    ]
    assert json.loads((tmp_path / "birds.jsonl").read_text().splitlines()[0])["width"] == 40


def test_a_hub_that_does_not_answer_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # nobody listens there once it is closed
    began = time.monotonic()
    with pytest.raises(DataError, match="hub:me/birds is not on this machine and the hub does not answer"):
        require_reachable("me/birds", endpoint=f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 15  # the client's own tries take 23 seconds of waiting alone


def test_what_a_hub_says_of_a_name_is_left_to_its_client() -> None:
    with data_hub({}) as address:
        require_reachable("me/none", endpoint=address)
