"""The page's server: rows are saved, corrected and removed; pictures are upright; strangers are refused."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from opengrit.annotation.app import Session, build_app
from opengrit.annotation.pictures import picture_names
from opengrit.annotation.row_file import RowFile
from opengrit.cli.app import app as command
from opengrit.core.errors import DataError
from opengrit.core.images import open_picture
from opengrit.data import load_examples
from opengrit.serving.security import Access

ROW = {
    "picture": 0,
    "question": "How many birds  are there?",
    "answer": " 2 ",
    "boxes": [[1, 2, 30, 40], [50, 50, 90, 70]],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good pictures, one of them turned by its EXIF, a damaged one, a link that leads out, and no pictures."""
    folder = tmp_path_factory.mktemp("annotated") / "photos"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (100, 80), "green").save(folder / "2.png")
    turned = Image.new("RGB", (300, 200), "blue")
    turned.paste((255, 0, 0), (0, 0, 30, 20))  # the stored picture's top left: upright, the top right
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "more" / "10.jpg", exif=exif)
    (folder / "3.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_bytes((folder / "2.png").read_bytes())
    Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "mine.jsonl"


def opened(photos: Path, out: Path) -> TestClient:
    session = Session(photos, picture_names(photos), RowFile(out), "birds")
    return TestClient(build_app(session, Access.bound_to("127.0.0.1")), base_url="http://127.0.0.1:7861")


@pytest.fixture
def client(photos: Path, out: Path) -> Iterator[TestClient]:
    with opened(photos, out) as one:
        yield one


def rows_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def refused(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["error"]["message"])


def test_pictures_are_in_a_persons_order_and_nothing_else_is_listed(photos, tmp_path):
    assert picture_names(photos) == ("2.png", "3.jpg", "more/10.jpg")
    with pytest.raises(DataError, match="holds none; name another"):
        picture_names(tmp_path)


def test_a_saved_row_is_one_of_grits_and_passes_the_check(client, out, photos):
    state = client.post("/api/rows", json=ROW).json()
    assert rows_in(out) == [
        {
            "question": "How many birds are there?", "answer": 2, "image": "2.png", "width": 100, "height": 80,
            "dataset": "birds", "bboxs": [[1, 2, 30, 40], [50, 50, 90, 70]],
        }
    ]  # fmt: skip
    assert (state["good"], state["kinds"]["count"], state["answers"]) == (1, 1, [["2", 1]])
    assert [(row["id"], row["picture"], row["problem"]) for row in state["rows"]] == [
        (state["saved"], 0, None)
    ]
    client.post("/api/rows", json=ROW | {"question": "Is it green?", "answer": "Yes", "boxes": []})
    client.post("/api/rows", json=ROW | {"picture": 2, "answer": "0", "boxes": []})
    assert ["bboxs" in row for row in rows_in(out)] == [True, False, True]
    (out.parent / "mine").mkdir()  # a folder of that name is not written to: it may be the pictures'
    for said in client.get("/api/session").json()["next"]:  # what the page says to run
        result = CliRunner().invoke(command, shlex.split(said)[1:])
        assert result.exit_code == 0, result.output
    assert (out.parent / "mine-2" / "recipe.yaml").is_file()


def test_coordinates_are_those_of_the_picture_as_shown_and_as_it_is_read(client, out, photos):
    told = client.get("/api/pictures/2").json()
    assert (told["width"], told["height"]) == (200, 300)
    shown = open_picture(photos / "more" / "10.jpg")
    with Image.open(io.BytesIO(client.get("/pictures/2").content)) as preview:
        assert preview.size == (200, 300)
    corner = [180, 0, 200, 30]  # where the red corner is when the picture is upright
    client.post(
        "/api/rows",
        json={"picture": 2, "question": "Where is red?", "answer": "top right", "boxes": [corner]},
    )
    [example] = load_examples(out, photos)
    assert (example.picture_size.width, example.picture_size.height) == shown.size == (200, 300)
    left, top, right, bottom = example.boxes[0].to_pixels(example.picture_size)
    red, _, blue = shown.getpixel((int(left + right) // 2, int(top + bottom) // 2))  # type: ignore[misc]
    assert red > 200 > blue


def test_a_row_is_corrected_and_removed_and_what_it_said_besides_stays(photos, out):
    kept = {
        "question": "Is it?",
        "answer": "Yes",
        "image": "2.png",
        "width": 100,
        "height": 80,
        "dataset": "old",
        "split": "dev",
    }
    out.write_text(json.dumps(kept) + "\n")
    with opened(photos, out) as client:
        [row] = client.get("/api/session").json()["rows"]
        state = client.put(f"/api/rows/{row['id']}", json=ROW | {"answer": "no", "boxes": []}).json()
        assert state["saved"] == row["id"]
        assert rows_in(out) == [kept | {"question": "How many birds are there?", "answer": "no"}]
        assert client.delete(f"/api/rows/{row['id']}").json()["rows"] == []
        assert out.read_bytes() == b""
        assert "reload the page" in refused(client.delete(f"/api/rows/{row['id']}"), 404)


def test_a_row_that_is_sent_again_because_the_reply_got_lost_is_written_once(photos, out):
    for _ in range(2):
        with opened(photos, out) as client:
            assert client.post("/api/rows", json=ROW).json()["good"] == 1
    assert len(rows_in(out)) == 1


def test_a_file_that_was_changed_elsewhere_is_read_again_and_not_written_over(client, out):
    client.post("/api/rows", json=ROW)
    theirs = rows_in(out)[0] | {"question": "Theirs?"}
    out.write_text(json.dumps(theirs) + "\n")
    assert "nothing was saved" in refused(client.post("/api/rows", json=ROW), 409)
    assert [row["question"] for row in client.get("/api/session").json()["rows"]] == ["Theirs?"]
    assert client.post("/api/rows", json=ROW).status_code == 200
    assert [row["question"] for row in rows_in(out)] == ["Theirs?", "How many birds are there?"]


BAD = {
    "no question": ({"question": " "}, "question", "write the question"),
    "no answer": ({"answer": ""}, "answer", "write the answer"),
    "a long question": ({"question": "x" * 2001}, "question", "at most 2000 characters"),
    "a placeholder": ({"question": "<image> What?"}, "question", "no picture placeholder"),
    "a tag": ({"answer": "<answer>2</answer>"}, "answer", "must be only the answer"),
    "half a character": ({"answer": "\ud83d"}, "answer", ""),
    "a box outside": ({"boxes": [[0, 0, 101, 80]]}, "boxes", "100 x 80 pixels"),
    "a box turned round": ({"boxes": [[30, 0, 10, 80]]}, "boxes", "draw it again"),
    "half a box": ({"boxes": [[0, 0, 10]]}, "boxes", "box 1 is not"),
    "fractions": ({"boxes": [[0, 0, 10.5, 3]]}, "boxes", "whole pixels"),
    "many boxes": ({"boxes": [[0, 0, 9, 9]] * 201}, "boxes", "at most 200"),
    "no picture": ({"picture": "../secret.png"}, "picture", "a picture's number"),
    "a damaged picture": ({"picture": 1}, "picture", "this is not"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_with_its_field_and_nothing_is_written(name, client, out):
    change, field, said = BAD[name]
    body = json.dumps(ROW | change).encode()
    response = client.post("/api/rows", content=body)
    assert said in refused(response, 400)
    assert name == "half a character" or response.json()["error"]["param"] == field
    assert out.read_bytes() == b""


def test_strangers_and_wrong_ways_are_refused(client, out):
    send = {"json": ROW}
    assert "Host header" in refused(client.post("/api/rows", headers={"Host": "evil.example"}, **send), 421)
    assert "other origins" in refused(
        client.post("/api/rows", headers={"Origin": "http://evil.example"}, **send), 403
    )
    assert "other origins" in refused(client.get("/api/session", headers={"Origin": "null"}), 403)
    assert "at most" in refused(client.post("/api/rows", content=b"[" + b"1" * 2_000_000), 413)
    refused(client.post("/api/rows", content=b"[" * 500), 400)
    refused(client.post("/api/rows", content=b"\xff"), 400)
    for path in (
        "/static/..%2f..%2fapp.py", "/static/page.html", "/pictures/..%2f..%2fsecret.png", "/pictures/99",
        "/pictures/-1", "/api/pictures/3", "/../secret.png", "/openapi.json", "/docs", "/nothing",
    ):  # fmt: skip
        assert client.get(path).status_code in (404, 422), path
    assert client.get("/api/rows").status_code == 405
    assert "this is not" in client.get("/api/pictures/1").json()["problem"]
    assert out.read_bytes() == b""


def test_every_response_allows_files_of_its_own_and_nothing_else(client):
    for path in ("/", "/static/page.js", "/static/viewer.css", "/api/session", "/pictures/0", "/nothing"):
        response = client.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
    page = client.get("/").text
    assert "style=" not in page
    assert "onclick" not in page
    assert "//" not in page.replace("<!doctype", "")


def test_the_command_refuses_what_it_cannot_use(photos, tmp_path):
    run = CliRunner()
    for arguments, said in (
        ([str(photos), "--out", str(tmp_path / "a.json")], "end its name in .jsonl"),
        ([str(tmp_path / "none"), "--out", str(tmp_path / "a.jsonl")], "check the path"),
        ([str(photos), "--out", str(tmp_path / "a.jsonl"), "--dataset", " "], "give one with --dataset"),
    ):
        result = run.invoke(command, ["annotate", *arguments])
        assert result.exit_code == 2
        assert said in result.stderr
    assert not list(tmp_path.iterdir())
