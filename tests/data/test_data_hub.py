"""Rows and archives from a hub, through the real `huggingface_hub` client, against a hub on this machine."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_hub import DownloadHub, download_hub
from PIL import Image

from opengrit.core.boxes import Box
from opengrit.core.errors import DataError
from opengrit.data import load_examples
from opengrit.data.get import SOURCE, HuggingFaceHub, get, plan
from opengrit.data.pictures.fetch import get_pictures
from opengrit.data.pictures.kept import MANIFEST
from opengrit.judges import same_answer
from opengrit.judges.options import options_of

NAMES = [
    f"{number:024x}.jpg" for number in range(2107)
]  # as many as OVDEval's rows name; one is asked twice and more


def rows() -> bytes:
    names = [*NAMES, *NAMES[:39]]
    return b"".join(
        json.dumps(
            {
                "question": f"Please output bbox coordinates in JSON format for the detected: thing {index}.",
                "answer": [0, 0, 4, 4],
                "image": name,
                "width": 8,
                "height": 6,
                "bboxs": [[0, 0, 4, 4]],
                "dataset": "ovd_position",
            }
        ).encode()
        + b"\n"
        for index, name in enumerate(names)
    )


def archive() -> bytes:
    picture, stream = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(picture, "JPEG")
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name in NAMES:
            member = tarfile.TarInfo(f"position/{name}")
            member.size = len(picture.getvalue())
            made.addfile(member, io.BytesIO(picture.getvalue()))
    return stream.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    return {
        "datasets/yfan1997/GRIT_data": {"ovd_position_val.jsonl": rows()},
        "datasets/omlab/OVDEval": {"position.tar.gz": archive()},
    }


@pytest.fixture
def hub(files: dict[str, dict[str, bytes]]) -> Iterator[DownloadHub]:
    with download_hub(files) as running:
        yield running


def test_rows_and_pictures_come_from_the_hub(tmp_path: Path, hub: DownloadHub) -> None:
    client = HuggingFaceHub(hub.url)
    planned = str(plan("ovdeval", tmp_path, hub=client))
    assert f"{len(rows()) / 1000:.0f} kB" in planned
    assert not list(tmp_path.iterdir())
    get("ovdeval", tmp_path, hub=client)
    images = get_pictures("ovdeval", tmp_path, hub=client)
    assert len(list(images.iterdir())) == 2107
    assert len(load_examples(tmp_path / "ovdeval")) == 2146
    manifest = json.loads((tmp_path / "ovdeval" / MANIFEST).read_text(encoding="utf-8"))["pictures"]
    where = "https://huggingface.co/datasets/omlab/OVDEval: position.tar.gz"
    assert manifest[NAMES[5]]["origin"] == f"{where} (position/{NAMES[5]})"
    assert sorted(path.name for path in (tmp_path / "ovdeval").iterdir()) == [
        "images",
        "ovd_position_val.jsonl",
        MANIFEST,
        SOURCE,
    ]


def test_a_download_that_breaks_off_is_made_whole(tmp_path: Path, hub: DownloadHub) -> None:
    client = HuggingFaceHub(hub.url)
    hub.cut_off = 1
    get("ovdeval", tmp_path, hub=client)
    assert (tmp_path / "ovdeval" / "ovd_position_val.jsonl").read_bytes() == rows()
    assert [method for method, _, _ in hub.asked].count("GET") == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hub_that_refuses_is_one_line_that_says_what_to_do(
    tmp_path: Path, hub: DownloadHub, status: int
) -> None:
    hub.status = status
    with pytest.raises(DataError, match=r"cannot be fetched .*--from") as caught:
        get("ovdeval", tmp_path, hub=HuggingFaceHub(hub.url))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ovdeval").exists()


def test_a_repository_without_the_file_says_so(tmp_path: Path, hub: DownloadHub) -> None:
    with pytest.raises(DataError, match=r"yfan1997/GRIT_data has no file vsr_val\.jsonl"):
        get("vsr", tmp_path, hub=HuggingFaceHub(hub.url))


# TreeBench: rows and pictures in one table.


def treebench_table(changes: dict[int, dict[str, str]] | None = None) -> bytes:
    columns = ["index", "image", "question", "multi-choice options", "answer", "category", "target_instances"]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    for number in range(405):
        picture = io.BytesIO()
        Image.new("RGB", (40 + number % 7, 30)).save(picture, "JPEG")
        row = {
            "index": str(number + 1),
            "image": base64.b64encode(picture.getvalue()).decode(),
            "question": f'What is left of thing {number}, "quoted"?',
            "multi-choice options": "A. a cat\nB. a dog\nC. a cow\nD. nothing",
            "answer": "ABCD"[number % 4],
            "category": "Perception/OCR" if number % 2 else "Reasoning/Ordering",
            "target_instances": "[[1, 2, 11, 12], [20, 2, 30, 12]]",
        }
        writer.writerow([(row | (changes or {}).get(number, {}))[name] for name in columns])
    return stream.getvalue().encode()


def test_treebench_is_fetched_once_for_rows_and_pictures(tmp_path: Path) -> None:
    with download_hub({"datasets/HaochenWang/TreeBench": {"TreeBench.tsv": treebench_table()}}) as hub:
        client = HuggingFaceHub(hub.url)
        get("treebench", tmp_path, hub=client, keep_downloads=True)
        get_pictures("treebench", tmp_path, hub=client)
        assert [method for method, _, _ in hub.asked].count("GET") == 1
    examples = load_examples(tmp_path / "treebench")
    first = examples[0]
    assert (len(examples), first.answer, first.dataset) == (405, "A", "treebench")
    assert options_of(first.question) == {"A": "a cat", "B": "a dog", "C": "a cow", "D": "nothing"}
    assert first.boxes[0] == Box(1 / 40, 2 / 30, 11 / 40, 12 / 30)
    assert same_answer(first.answer, "A. a cat", first.question)
    assert not same_answer(first.answer, "B", first.question)
    assert {path.name for path in (tmp_path / "treebench").iterdir()} == {
        "images",
        "treebench.jsonl",
        MANIFEST,
        SOURCE,
    }


@pytest.mark.parametrize(
    "change",
    [{"image": "no base64!"}, {"image": "aGVsbG8="}, {"target_instances": "[[1, 2]]"}, {"target_instances": "__import__('os')"}, {"index": "../../x"}],
)  # fmt: skip
def test_a_row_that_is_not_treebenchs_is_named(tmp_path: Path, change: dict[str, str]) -> None:
    (tmp_path / "TreeBench.tsv").write_bytes(treebench_table({2: change}))
    with pytest.raises(DataError, match="row 3 of"):
        get("treebench", tmp_path / "data", mirror=tmp_path)
