"""Rows and archives from a hub, through the real `huggingface_hub` client, against a hub on this machine."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from download_hub import DownloadHub, download_hub
from PIL import Image

from opengrit.core.errors import DataError
from opengrit.data import load_examples
from opengrit.data.get import SOURCE, HuggingFaceHub, get, plan
from opengrit.data.pictures.fetch import get_pictures
from opengrit.data.pictures.kept import MANIFEST

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
    with pytest.raises(DataError, match=r"must be fetched, they cannot be .*--from") as caught:
        get("ovdeval", tmp_path, hub=HuggingFaceHub(hub.url))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ovdeval").exists()


def test_a_repository_without_the_file_says_so(tmp_path: Path, hub: DownloadHub) -> None:
    with pytest.raises(DataError, match=r"yfan1997/GRIT_data has no file vsr_val\.jsonl"):
        get("vsr", tmp_path, hub=HuggingFaceHub(hub.url))
