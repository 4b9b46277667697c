"""Getting a benchmark: said beforehand, resumed, verified, never overwritten. A folder stands in for the hub."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from fixtures_path import needs_fixtures, shared
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import DataError
from opengrit.data import load_examples
from opengrit.data.benchmarks import benchmark
from opengrit.data.get import SOURCE, HuggingFaceHub, Plan, Unreachable, annotation_files, get, plan


class FolderHub:
    """A hub whose repositories are folders, and which counts what it was asked for."""

    def __init__(self, root: Path, *, breaks_off_after: int | None = None) -> None:
        self.root = root
        self.fetched: list[str] = []
        self.breaks_off_after = breaks_off_after

    def _file(self, repository: str, file: str) -> Path:
        path = self.root / repository / file
        if not path.is_file():
            raise Unreachable(f"{repository} has no file {file}")
        return path

    def size(self, repository: str, file: str, revision: str) -> int | None:
        return self._file(repository, file).stat().st_size

    def fetch(self, repository: str, file: str, revision: str, folder: Path) -> Path:
        path = self._file(repository, file)
        folder.mkdir(parents=True, exist_ok=True)
        self.fetched.append(file)
        if self.breaks_off_after is not None:
            (folder / f"{file}.incomplete").write_bytes(path.read_bytes()[: self.breaks_off_after])
            raise Unreachable("the connection was lost")
        return Path(shutil.copy(path, folder / file))


class NoHub:
    """A machine without a network."""

    def size(self, repository: str, file: str, revision: str) -> int | None:
        raise Unreachable("no network")

    def fetch(self, repository: str, file: str, revision: str, folder: Path) -> Path:
        raise Unreachable("no network")


def mme_rows() -> str:
    """240 rows in the form of MME's, one picture for two questions."""
    rows = (
        {
            "question": f"Is there a thing number {index}?",
            "answer": "No" if index % 2 else "Yes",
            "image": f"{index:06d}.png",
            "width": 20,
            "height": 10,
            "dataset": "mme_count",
        }
        for index in range(240)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    folder = tmp_path / "hub" / "yfan1997" / "GRIT_data"
    folder.mkdir(parents=True)
    (folder / "mme_val.jsonl").write_text(mme_rows(), encoding="utf-8")
    return FolderHub(tmp_path / "hub")


def test_what_is_fetched_is_said_before_it_is_fetched(tmp_path: Path, hub: FolderHub) -> None:
    said: list[str] = []

    def announce(planned: Plan) -> None:
        assert hub.fetched == []
        said.append(str(planned))

    (path,) = get("mme", tmp_path / "data", hub=hub, announce=announce)
    assert path == tmp_path / "data" / "mme" / "mme_val.jsonl"
    assert path.read_text(encoding="utf-8") == mme_rows()
    (text,) = said
    kilobytes = f"{len(mme_rows()) / 1000:.0f} kB"
    for part in (
        "yfan1997/GRIT_data",
        "mme_val.jsonl",
        kilobytes,
        "rows: 240",
        "licence",
        "unknown",
        "000860.png",
    ):
        assert part in text
    assert str(tmp_path / "data" / "mme" / "images") in text


def test_where_a_file_came_from_is_recorded_with_its_hash(tmp_path: Path, hub: FolderHub) -> None:
    get("mme", tmp_path, hub=hub, revision="v1")
    (entry,) = json.loads((tmp_path / "mme" / SOURCE).read_text(encoding="utf-8"))["files"].values()
    assert entry["sha256"] == hashlib.sha256(mme_rows().encode()).hexdigest() == entry["published_sha256"]
    assert "revision v1" in entry["from"]
    assert sorted(path.name for path in (tmp_path / "mme").iterdir()) == ["mme_val.jsonl", SOURCE]


def test_a_second_call_fetches_nothing_and_verifies(tmp_path: Path, hub: FolderHub) -> None:
    first = get("mme", tmp_path, hub=hub)
    assert get("mme", tmp_path, hub=NoHub()) == first
    assert hub.fetched == ["mme_val.jsonl"]
    changed = first[0].read_text(encoding="utf-8").replace("number 7?", "number 8?")
    first[0].write_text(changed, encoding="utf-8")
    with pytest.raises(DataError, match="move it away"):
        get("mme", tmp_path, hub=hub)
    assert first[0].read_text(encoding="utf-8") == changed


def test_a_download_that_breaks_off_is_taken_up_by_the_next_call(tmp_path: Path, hub: FolderHub) -> None:
    broken = FolderHub(hub.root, breaks_off_after=1000)
    with pytest.raises(DataError, match="the connection was lost"):
        get("mme", tmp_path / "data", hub=broken)
    # What was downloaded stays for the hub's client to continue, and no half file stands in place.
    assert [path.name for path in (tmp_path / "data" / "mme").rglob("*") if path.is_file()] == [
        "mme_val.jsonl.incomplete"
    ]
    assert annotation_files(tmp_path / "data" / "mme") == []
    (path,) = get("mme", tmp_path / "data", hub=hub)
    assert path.read_text(encoding="utf-8") == mme_rows()
    assert [p for p in (tmp_path / "data" / "mme").rglob("*incomplete*")] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("".join(mme_rows().splitlines(keepends=True)[:239]), "has 240 rows"),
        (mme_rows().replace('"answer": "Yes"', '"answer": null', 1), "every row must follow"),
        ("", "has 240 rows"),
    ],
)
def test_a_file_with_other_rows_is_refused_and_not_left_in_place(
    tmp_path: Path, hub: FolderHub, content: str, said: str
) -> None:
    (hub.root / "yfan1997" / "GRIT_data" / "mme_val.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        get("mme", tmp_path / "data", hub=hub)
    assert not (tmp_path / "data" / "mme" / "mme_val.jsonl").exists()
    assert not (tmp_path / "data" / "mme" / "mme_val.part").exists()


def test_without_a_network_the_message_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        get("vsr", tmp_path, hub=NoHub())
    for part in (
        "vsr_val.jsonl",
        "https://huggingface.co/datasets/yfan1997/GRIT_data",
        "--from",
        str(tmp_path / "vsr"),
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "vsr").exists()


@pytest.mark.parametrize("layout", [".", "mme", "yfan1997/GRIT_data", "GRIT_data"])
def test_a_mirror_may_lie_in_any_of_the_usual_ways(tmp_path: Path, layout: str) -> None:
    place = tmp_path / "mirror" / layout
    place.mkdir(parents=True)
    (place / "mme_val.jsonl").write_text(mme_rows(), encoding="utf-8")
    (path,) = get("mme", tmp_path / "data", mirror=tmp_path / "mirror", hub=NoHub())
    assert path.read_text(encoding="utf-8") == mme_rows()


def test_a_mirror_without_the_file_or_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mme_val\.jsonl is not in"):
        get("mme", tmp_path / "data", mirror=tmp_path)
    with pytest.raises(DataError, match="--from must be an existing folder"):
        get("mme", tmp_path / "data", mirror=tmp_path / "nowhere")


def test_files_put_in_place_by_hand_are_verified_and_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "mme"
    folder.mkdir()
    (folder / "mme_val.jsonl").write_text(mme_rows(), encoding="utf-8")
    get("mme", tmp_path, hub=NoHub())
    assert annotation_files(folder) == [folder / "mme_val.jsonl"]


# POPE's own form.

POPE_ROWS = [
    {
        "question_id": 0,
        "image": "a.jpg",
        "image_id": 1,
        "text": "Is there a dog in the image?",
        "label": "yes",
    },
    {
        "question_id": 1,
        "image": "a.jpg",
        "image_id": 1,
        "text": "Is there a cat in the image?",
        "label": "no",
    },
]


def pope_mirror(folder: Path, rows: list[dict[str, object]]) -> Path:
    place = folder / "output" / "coco"
    place.mkdir(parents=True)
    for kind in ("random", "popular", "adversarial"):
        (place / f"coco_pope_{kind}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_pope_becomes_rows_like_any_other(tmp_path: Path) -> None:
    get("pope", tmp_path / "data", mirror=pope_mirror(tmp_path / "POPE", POPE_ROWS), hub=NoHub())
    (tmp_path / "coco").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "coco" / "a.jpg")
    examples = load_examples(tmp_path / "data" / "pope", images=tmp_path / "coco")
    assert [e.id for e in examples] == [
        f"pope_{kind}:{line}" for kind in ("random", "popular", "adversarial") for line in (1, 2)
    ]
    assert {e.dataset for e in examples} == set(benchmark("pope").datasets)
    assert [(e.question, e.answer) for e in examples[:2]] == [
        ("Is there a dog in the image?", "Yes"),
        ("Is there a cat in the image?", "No"),
    ]
    assert (examples[0].picture_size.width, examples[0].boxes_known) == (30, False)


@pytest.mark.parametrize("change", [{"label": "maybe"}, {"label": 1}, {"text": None}])
def test_a_line_that_is_not_popes_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    row = {key: value for key, value in (POPE_ROWS[1] | change).items() if value is not None}
    mirror = pope_mirror(tmp_path / "POPE", [POPE_ROWS[0], row])
    with pytest.raises(DataError, match="line 2 of"):
        get("pope", tmp_path / "data", mirror=mirror)
    assert annotation_files(tmp_path / "data" / "pope") == []


def test_pope_is_on_no_hub_and_says_where_it_is(tmp_path: Path, hub: FolderHub) -> None:
    with pytest.raises(DataError, match=r"github\.com/AoiDragon/POPE, folder output/coco"):
        get("pope", tmp_path, hub=hub)
    assert hub.fetched == []


# Names.


def test_an_unknown_name_lists_the_known_ones_and_a_packaged_set_needs_no_getting(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="grit20, vsr, tallyqa, tallyqa-relabeled, gqa, mathvista, mme, ovdeval, treebench, pope",
    ):
        plan("coco", tmp_path)
    with pytest.raises(DataError, match="packaged"):
        plan("stickers/count", tmp_path)
    with pytest.raises(DataError, match="opengrit data get vsr"):
        load_examples("vsr")


def test_a_folder_that_was_not_filled_by_get_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder that `opengrit data get` filled"):
        load_examples(tmp_path)


def test_pictures_beside_the_questions_are_found(tmp_path: Path, hub: FolderHub) -> None:
    get("mme", tmp_path, hub=hub)
    images = tmp_path / "mme" / "images"
    images.mkdir()
    for index in range(240):
        Image.new("RGB", (20, 10)).save(images / f"{index:06d}.png")
    examples = load_examples(str(tmp_path / "mme"))
    assert len(examples) == 240
    assert all(Path(e.image).parent == images for e in examples)
    shutil.move(images, tmp_path / "elsewhere")
    assert len(load_examples(tmp_path / "mme", images=tmp_path / "elsewhere")) == 240
    with pytest.raises(DataError, match="do not"):
        load_examples(tmp_path / "mme")


# The command.


def test_the_command_says_does_and_verifies(tmp_path: Path, hub: FolderHub) -> None:
    out, mirror = str(tmp_path / "data"), str(hub.root)
    dry = CliRunner().invoke(app, ["data", "get", "mme", "--out", out, "--from", mirror, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "mme_val.jsonl" in dry.output
    assert not (tmp_path / "data").exists()
    done = CliRunner().invoke(app, ["data", "get", "mme", "--out", out, "--from", mirror])
    assert done.exit_code == 0, done.output
    assert f"verified: {tmp_path / 'data' / 'mme' / 'mme_val.jsonl'}" in done.output
    wrong = CliRunner().invoke(app, ["data", "get", "nothing", "--out", out])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: a benchmark to get is one of")


def test_the_list_names_every_benchmark_with_its_licence() -> None:
    listed = CliRunner().invoke(app, ["data", "list"])
    assert listed.exit_code == 0, listed.output
    for part in ("vsr:", "rows: 2146", "216 MB", "CC BY-SA 4.0", "stickers/train20", "licence: unknown"):
        assert part in listed.output


def test_the_real_client_turned_offline_is_unreachable_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable):
        HuggingFaceHub().size("yfan1997/GRIT_data", "vsr_val.jsonl", "main")
    with pytest.raises(Unreachable):
        HuggingFaceHub().fetch("yfan1997/GRIT_data", "vsr_val.jsonl", "main", tmp_path)


# GRIT's own files.


@needs_fixtures
@pytest.mark.parametrize("name", ["vsr", "tallyqa", "gqa", "mathvista", "mme", "ovdeval"])
def test_the_released_files_are_what_the_table_of_facts_says(tmp_path: Path, name: str) -> None:
    (path,) = get(name, tmp_path, mirror=shared("grit_val"), hub=NoHub())
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = benchmark(name)
    assert len(rows) == known.rows
    assert len({row["image"] for row in rows}) == known.pictures.count
    assert {row["dataset"] for row in rows} == set(known.datasets)
    assert known.pictures.named in {row["image"] for row in rows}
