"""Fetching pictures: only those that rows name, each verified, nothing overwritten, whatever a server does or a kill leaves."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_path import needs_fixtures, shared
from picture_server import Bad, PictureServer, picture_server
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import DataError
from opengrit.data import load_examples
from opengrit.data.benchmarks import benchmark
from opengrit.data.get import SOURCE, Unreachable
from opengrit.data.pictures.addresses import HOSTS, addresses_of, is_safe, is_within, with_mirrors
from opengrit.data.pictures.download import Patience
from opengrit.data.pictures.fetch import get_pictures
from opengrit.data.pictures.kept import MANIFEST, wanted_by

QUICK = Patience(
    tries=3, try_seconds=0.3, silence_seconds=0.3, first_wait_seconds=0.01, longest_wait_seconds=2.0
)
COCO_NAMES = [f"{number:012d}.jpg" for number in range(385473, 385483)]
GENOME_NAMES = [f"VG_100K{'_2' if number % 2 else ''}/{number}.jpg" for number in range(2400, 2410)]


def jpeg(width: int, height: int, *, seed: int = 0) -> bytes:
    """A JPEG of noise, so that it has some kilobytes and half of it does not decode."""
    noise = random.Random(seed).randbytes(width * height * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", (width, height), noise).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def rows_of(names: list[str], dataset: str) -> str:
    return "".join(
        json.dumps(
            {
                "question": f"How many things are in picture {index}?",
                "answer": str(index % 5) if dataset == "tallyqa" else "Yes",
                "image": name,
                "width": 60 + index,
                "height": 40,
                "bboxs": [[0, 0, 10, 10]],
                "dataset": dataset,
            }
        )
        + "\n"
        for index, name in enumerate(names)
    )


def fetched_rows(out: Path, name: str, files: dict[str, str]) -> Path:
    """A folder as `get` leaves it, with rows of our own."""
    folder = out / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    record = {file: {"sha256": hashlib.sha256(text.encode()).hexdigest()} for file, text in files.items()}
    (folder / SOURCE).write_text(json.dumps({"files": record}), encoding="utf-8")
    return folder


def one_picture(out: Path) -> Path:
    return fetched_rows(out, "vsr", {"vsr_val.jsonl": rows_of(COCO_NAMES[:1], "vsr")})


def mirrors(server: PictureServer) -> dict:
    return with_mirrors([f"coco={server.url}", f"visual-genome={server.url}"])


@pytest.fixture
def server() -> Iterator[PictureServer]:
    files = {f"/train2017/{name}": jpeg(60 + index, 40, seed=index) for index, name in enumerate(COCO_NAMES)}
    files |= {f"/{name}": jpeg(60 + index, 40, seed=50 + index) for index, name in enumerate(GENOME_NAMES)}
    files["/other"] = jpeg(33, 44)
    with picture_server(files) as told:
        yield told


def files_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


GRIT20 = {
    "vsr_cot_train_10.jsonl": rows_of(COCO_NAMES, "vsr"),
    "tallyqa_train_10.jsonl": rows_of(GENOME_NAMES, "tallyqa"),
}


def test_the_pictures_that_rows_name_come_from_their_hosts_and_load(
    tmp_path: Path, server: PictureServer
) -> None:
    server.files[f"/val2017/{COCO_NAMES[3]}"] = server.files.pop(f"/train2017/{COCO_NAMES[3]}")
    folder = fetched_rows(tmp_path, "grit20", GRIT20)
    told: list[tuple[int, int]] = []
    plans: list[str] = []

    def announce(plan: object) -> None:
        assert server.asked == []
        plans.append(str(plan))

    get_pictures(
        "grit20", tmp_path, hosts=mirrors(server), announce=announce, on_progress=lambda *at: told.append(at)
    )
    examples = load_examples(folder)
    assert len({example.image for example in examples}) == 20
    assert told[0] == (0, 20)
    assert told[-1] == (20, 20)
    for part in ("20 named by the rows", "licence", "CC BY 4.0", server.url):
        assert part in plans[0]
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["pictures"]
    assert list(manifest) == [*COCO_NAMES, *GENOME_NAMES]  # in the order of the rows
    moved = manifest[COCO_NAMES[3]]
    assert moved["origin"] == f"{server.url}/val2017/{COCO_NAMES[3]}"
    assert moved["sha256"] == hashlib.sha256(server.files[f"/val2017/{COCO_NAMES[3]}"]).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*GRIT20, SOURCE, MANIFEST, "images"])


def test_a_second_call_asks_nobody(tmp_path: Path, server: PictureServer) -> None:
    folder = fetched_rows(tmp_path, "grit20", GRIT20)
    get_pictures("grit20", tmp_path, hosts=mirrors(server))
    before, asked = files_below(folder), len(server.asked)
    get_pictures("grit20", tmp_path, hosts=mirrors(server))
    assert len(server.asked) == asked
    assert files_below(folder) == before


@pytest.mark.parametrize("bad", [bad for bad in Bad if bad not in (Bad.NOTHING, Bad.MOVED)])
def test_nothing_wrong_is_kept(tmp_path: Path, server: PictureServer, bad: Bad) -> None:
    """Twenty-three kinds of bad answers, each given every time."""
    server.plan = lambda path, times: bad
    folder = one_picture(tmp_path)
    before = files_below(folder)
    with pytest.raises(DataError, match="run the same command"):
        get_pictures("vsr", tmp_path, hosts=mirrors(server), patience=QUICK)
    after = {path for path in files_below(folder) if not path.startswith(".pictures/")}
    assert after == {*before, MANIFEST}
    assert json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == {"pictures": {}}
    server.plan = lambda path, times: Bad.NOTHING  # and what was left behind harms nothing
    server.drip_seconds = 0.0
    get_pictures("vsr", tmp_path, hosts=mirrors(server), patience=QUICK)
    path = folder / "images" / COCO_NAMES[0]
    assert path.read_bytes() == server.files[f"/train2017/{COCO_NAMES[0]}"]
    assert not (folder / ".pictures").exists()


@pytest.mark.parametrize(
    "bad", [Bad.BROKEN, Bad.BUSY, Bad.SLOW_DOWN, Bad.CUT_OFF, Bad.TRUNCATED, Bad.WRONG_PICTURE]
)
def test_a_failure_that_passes_is_tried_again(tmp_path: Path, server: PictureServer, bad: Bad) -> None:
    server.plan = lambda path, times: bad if times == 0 else Bad.NOTHING
    one_picture(tmp_path)
    get_pictures("vsr", tmp_path, hosts=mirrors(server), patience=QUICK)
    if bad is Bad.CUT_OFF:  # the second half alone is asked for
        half = len(server.files[f"/train2017/{COCO_NAMES[0]}"]) // 2
        assert [wanted for _, wanted in server.asked] == [None, f"bytes={half}-"]
    if bad is Bad.SLOW_DOWN:
        assert server.times[1] - server.times[0] >= 0.1


def test_a_host_that_says_slow_down_is_left_alone_by_every_worker(
    tmp_path: Path, server: PictureServer
) -> None:
    def plan(path: str, times: int) -> Bad:
        if path == server.asked[0][0] and times == 0:
            return Bad.SLOW_DOWN
        time.sleep(0.1)  # the others are under way until it has been read
        return Bad.NOTHING

    server.retry_after, server.plan = "0.5", plan
    fetched_rows(tmp_path, "vsr", {"vsr_val.jsonl": rows_of(COCO_NAMES, "vsr")})
    get_pictures("vsr", tmp_path, hosts=mirrors(server), workers=4, patience=replace(QUICK, try_seconds=2.0))
    assert len(server.asked) == 11
    assert min(server.times[4:]) - server.times[0] >= 0.5


def test_a_redirect_within_the_host_is_followed(tmp_path: Path, server: PictureServer) -> None:
    name = f"/train2017/{COCO_NAMES[0]}"
    server.files[f"/moved{name}"] = server.files[name]
    server.plan = lambda path, times: Bad.MOVED if path == name else Bad.NOTHING
    one_picture(tmp_path)
    get_pictures("vsr", tmp_path, hosts=mirrors(server), patience=QUICK)
    assert [path for path, _ in server.asked] == [name, f"/moved{name}"]


def test_a_host_that_is_not_there_is_given_up_soon_and_says_how_to_go_on(tmp_path: Path) -> None:
    fetched_rows(tmp_path, "grit20", GRIT20)
    nobody = with_mirrors(["coco=http://127.0.0.1:9", "visual-genome=http://127.0.0.1:9"])
    start = time.monotonic()
    with pytest.raises(DataError, match=r"4 pictures in a row, .*--from"):
        get_pictures("grit20", tmp_path, hosts=nobody, patience=QUICK)
    assert time.monotonic() - start < 5


def test_what_is_there_is_never_written_over(tmp_path: Path, server: PictureServer) -> None:
    folder = fetched_rows(tmp_path, "grit20", GRIT20)
    own = folder / "images" / COCO_NAMES[0]
    own.parent.mkdir()
    own.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="move them away"):
        get_pictures("grit20", tmp_path, hosts=mirrors(server))
    assert (own.read_bytes(), server.asked) == (b"not a picture", [])
    own.write_bytes(jpeg(60, 40, seed=99))  # of the rows' size: taken as it is
    get_pictures("grit20", tmp_path, hosts=mirrors(server))
    assert own.read_bytes() == jpeg(60, 40, seed=99)
    other = folder / "images" / COCO_NAMES[1]
    other.write_bytes(jpeg(61, 40, seed=98))  # of the rows' size, and not what was fetched
    with pytest.raises(DataError, match="has changed since it was fetched"):
        get_pictures("grit20", tmp_path, hosts=mirrors(server))


@pytest.mark.slow
def test_a_fetch_that_is_killed_ten_times_ends_as_one_that_was_not(
    tmp_path: Path, server: PictureServer
) -> None:
    """Seed 0; the server takes 100 ms for each picture, so that kills fall into downloads and into keeping them."""
    server.seconds_before = 0.1
    rows = tmp_path / "rows"
    rows.mkdir()
    for file, text in GRIT20.items():
        (rows / file).write_text(text, encoding="utf-8")
    script = (
        "import sys; from opengrit.data.get import get; from opengrit.data.pictures.addresses import with_mirrors; "
        "from opengrit.data.pictures.fetch import get_pictures; out, rows, url = sys.argv[1:]; "
        "hosts = with_mirrors([f'coco={url}', f'visual-genome={url}']); "
        "get('grit20', out, mirror=rows); get_pictures('grit20', out, hosts=hosts, workers=2)"
    )
    command = [sys.executable, "-c", script]
    whole, killed_at = [*command, str(tmp_path / "whole"), str(rows), server.url], str(tmp_path / "killed")
    subprocess.run(whole, check=True)
    command += [killed_at, str(rows), server.url]
    chance, killed = random.Random(0), 0
    deadline = time.monotonic() + 90
    while killed < 10 and time.monotonic() < deadline:
        asked = len(server.asked)
        process = subprocess.Popen(command)
        while len(server.asked) == asked and process.poll() is None:
            time.sleep(0.005)  # starting Python is not what is tested
        time.sleep(chance.uniform(0.05, 0.15))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 10
    subprocess.run(command, check=True)
    assert files_below(tmp_path / "killed") == files_below(tmp_path / "whole")


# Names and addresses.


@needs_fixtures
def test_every_picture_of_the_released_files_has_an_address_or_an_archive() -> None:
    names = {
        file: [one.name for one in wanted_by([shared("grit_val", f"{file}_val.jsonl")])]
        for file in ("vsr", "tallyqa", "gqa")
    }
    assert [len(found) for found in names.values()] == [247, 465, 501]
    for found in names.values():
        assert all(addresses_of(name) for name in found)
    assert addresses_of("000000538194.jpg") == (
        "https://s3.amazonaws.com/images.cocodataset.org/train2017/000000538194.jpg",
        "https://s3.amazonaws.com/images.cocodataset.org/val2017/000000538194.jpg",
    )
    assert addresses_of("images/2376641.jpg")[1].endswith("/rak248/VG_100K_2/2376641.jpg")
    assert addresses_of("COCO_val2014_000000548882.jpg")[0].endswith("/val2014/COCO_val2014_000000548882.jpg")


@pytest.mark.parametrize(
    "name", ["../000000538194.jpg", "VG_100K/../x.jpg", "/etc/passwd", "000000538194.jpg?x", ""]
)
def test_a_name_of_another_form_has_no_address(name: str) -> None:
    assert addresses_of(name) == ()


def test_a_host_is_asked_over_https_or_on_this_machine() -> None:
    assert all(is_safe(host.url) for host in HOSTS.values())
    for url in (
        "http://example.org",
        "ftp://example.org",
        "https://a:b@example.org",
        "https://",
        "file:///etc",
    ):
        assert not is_safe(url)
    for given in ("coco=http://example.org", "coco", "flickr=https://example.org"):
        with pytest.raises(DataError, match=r"a mirror (is|needs)"):
            with_mirrors([given])


def test_a_redirect_stays_on_the_hosts_domain_and_over_https() -> None:
    genome = HOSTS["visual-genome"]
    for url in ("https://cs.stanford.edu/x.jpg", "https://www-cs.stanford.edu/x.jpg"):
        assert is_within(url, genome)
    for url in (
        "http://cs.stanford.edu/x.jpg",
        "https://stanford.edu.example.org/x.jpg",
        "https://notstanford.edu/x.jpg",
        "https://a@cs.stanford.edu/x.jpg",
        "http://127.0.0.1/x.jpg",
    ):
        assert not is_within(url, genome)


def test_a_row_that_leads_out_of_the_folder_fetches_nothing(tmp_path: Path, server: PictureServer) -> None:
    fetched_rows(tmp_path, "vsr", {"vsr_val.jsonl": rows_of(["../../outside.jpg"], "vsr")})
    with pytest.raises(DataError, match="relative path inside"):
        get_pictures("vsr", tmp_path, hosts=mirrors(server))
    assert server.asked == []


# The command.


def test_the_command_says_fetches_and_verifies(
    tmp_path: Path, server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("rows")
    for file, text in GRIT20.items():
        Path("rows", file).write_text(text, encoding="utf-8")
    hosts = ["--mirror", f"coco={server.url}", "--mirror", f"visual-genome={server.url}"]
    get = ["data", "get", "grit20", "--pictures", *hosts]
    dry = CliRunner().invoke(app, [*get, "--from", "rows", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    for part in ("rows: 10", "about 3 MB", "licence"):
        assert part in dry.output
    assert server.asked == []
    assert not Path("data").exists()
    rows = CliRunner().invoke(app, ["data", "get", "grit20", "--from", "rows"])
    assert rows.exit_code == 0, rows.output
    done = CliRunner().invoke(app, get)
    assert done.exit_code == 0, done.output
    assert "verified: every picture of grit20, in data/grit20/images" in done.output
    assert len(load_examples("data/grit20")) == 20


# Archives, and what the user has.

VSR_ROWS = {"vsr_val.jsonl": rows_of(COCO_NAMES, "vsr")}
CONTENT = {name: jpeg(60 + index, 40, seed=index) for index, name in enumerate(COCO_NAMES)}


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def folder_of(path: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("made", [zip_of, tar_of, folder_of])
@pytest.mark.parametrize("layout", ["train2017/", "", "a/b/", "mixed"])
def test_pictures_come_from_what_the_user_has(tmp_path: Path, made, layout: str) -> None:
    places = {
        f"{'val2017/' if layout == 'mixed' and index % 2 else layout.replace('mixed', 'train2017/')}{name}": content
        for index, (name, content) in enumerate(CONTENT.items())
    }
    other = {"train2017/000000000001.jpg": jpeg(9, 9), "readme.txt": b"hello"}
    source = made(tmp_path / "source", places | other)
    folder = fetched_rows(tmp_path, "vsr", VSR_ROWS)
    get_pictures("vsr", tmp_path, source=source, hosts={})
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == CONTENT


def test_an_archive_gives_what_it_has_and_the_rest_is_asked_for(
    tmp_path: Path, server: PictureServer
) -> None:
    source = zip_of(tmp_path / "some.zip", dict(list(CONTENT.items())[:7]))
    fetched_rows(tmp_path, "vsr", VSR_ROWS)
    with pytest.raises(
        DataError, match=r"3 of 10 are missing: .* run the command without --from for the rest"
    ):
        get_pictures("vsr", tmp_path, source=source)
    get_pictures("vsr", tmp_path, hosts=mirrors(server))
    assert len(server.asked) == 3


def test_of_two_members_of_one_name_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    source = zip_of(
        tmp_path / "two.zip", {"x/000000385473.jpg": jpeg(5, 5), "y/000000385473.jpg": CONTENT[COCO_NAMES[0]]}
    )
    folder = one_picture(tmp_path)
    get_pictures("vsr", tmp_path, source=source)
    assert (folder / "images" / COCO_NAMES[0]).read_bytes() == CONTENT[COCO_NAMES[0]]


def gzip_bomb(path: Path) -> Path:
    """A tar.gz of 0.3 MB that unpacks to 300 MB."""
    with gzip.open(path, "wb") as stream:
        head = tarfile.TarInfo("zeros")
        head.size = 300 * 2**20
        stream.write(head.tobuf())
        for _ in range(300):
            stream.write(bytes(2**20))
    return path


@pytest.mark.parametrize("kind", ["traversal", "link", "damaged", "bomb", "no archive", "wrong picture"])
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, kind: str) -> None:
    source, name = tmp_path / "in" / "archive", COCO_NAMES[0]
    source.parent.mkdir()
    match kind:
        case "traversal":  # its content is taken for the row's picture, its path is not
            tar_of(source, {f"../../../{name}": b"no picture", "/etc/evil": b"x"})
        case "link":
            with tarfile.open(source, "w") as archive:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
        case "damaged":
            content = tar_of(source, CONTENT).read_bytes()
            source.write_bytes(content[:500])
        case "bomb":
            gzip_bomb(source)
        case "no archive":
            source.write_bytes(b"hello")
        case "wrong picture":
            zip_of(source, {name: jpeg(33, 44)})
    folder = one_picture(tmp_path / "out")
    with pytest.raises(DataError):
        get_pictures("vsr", tmp_path / "out", source=source)
    assert not any(path.is_file() for path in (folder / "images").rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


# The hub's tables.


def parquet_of(path: Path, columns: dict[str, list]) -> Path:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)
    return path


class TablesHub:
    """A hub whose files lie in a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()

    def size(self, repository: str, file: str, revision: str) -> int | None:
        return None

    def fetch(self, repository: str, file: str, revision: str, folder: Path) -> Path:
        self.asked.append(file)
        if not (self.root / file).is_file():
            raise Unreachable("no network")
        return self.root / file


def mathvista_table(path: Path, pids: list[int]) -> Path:
    return parquet_of(
        path,
        {
            "pid": [str(pid) for pid in pids],
            "question": [f"What is {pid}  squared?" for pid in pids],
            "decoded_image": [{"bytes": jpeg(10 + pid, 20, seed=pid), "path": None} for pid in pids],
        },
    )


def mathvista_rows(pids: list[int]) -> str:
    return "".join(
        json.dumps({"question": f"Hint: a number.\nQuestion: What is {pid} squared?", "answer": str(pid**2), "image": f"{pid}.png", "width": 10 + pid, "height": 20, "dataset": "mathvista_mini"}) + "\n"
        for pid in pids
    )  # fmt: skip


def test_mathvistas_pictures_are_found_by_number_and_question(tmp_path: Path) -> None:
    file = benchmark("mathvista").archives.files[0].name
    mathvista_table(tmp_path / "hub" / file, [3, 1, 2, 4])
    folder = fetched_rows(tmp_path, "mathvista", {"mathvista_mini_val.jsonl": mathvista_rows([1, 2, 3])})
    get_pictures("mathvista", tmp_path, hub=TablesHub(tmp_path / "hub"))
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == {
        f"{pid}.png": jpeg(10 + pid, 20, seed=pid) for pid in (1, 2, 3)
    }
    rows = mathvista_rows([1, 2, 3]).replace("What is 2 squared", "What is 2 cubed")
    folder = fetched_rows(tmp_path / "other", "mathvista", {"mathvista_mini_val.jsonl": rows})
    with pytest.raises(DataError, match=r"pid 2 .* asks another one"):
        get_pictures("mathvista", tmp_path / "other", source=tmp_path / "hub")


def mme_columns(first: int, count: int, *, shift: int = 0) -> dict[str, list]:
    """Rows of a table as MME's: 4 of `existence` among others, from the `first` row of the whole list on."""
    rows = [("landmark", 0)] * 3 + [("existence", k) for k in range(4)] + [("OCR", 0)] * 2
    rows = rows[first : first + count]
    return {
        "category": [category for category, _ in rows],
        "question": [
            f"Is there a thing {k + shift} in this image? Please answer yes or no." for _, k in rows
        ],
        "answer": ["Yes" if (k + shift) % 2 else "No" for _, k in rows],
        "image": [{"bytes": jpeg(20, 10 + k, seed=k), "path": None} for _, k in rows],
    }


MME_ROWS = "".join(
    json.dumps({"question": f"Is there a thing {k} in this image? Please answer yes or no.", "answer": "Yes" if k % 2 else "No", "image": f"{2020 + k:06d}.png", "width": 20, "height": 10 + k, "dataset": "mme_existence"}) + "\n"
    for k in range(4)
)  # fmt: skip


def test_mmes_pictures_are_those_whose_questions_and_answers_agree(tmp_path: Path) -> None:
    second, last, first = (file.name for file in benchmark("mme").archives.files[:3])
    parquet_of(tmp_path / "hub" / second, mme_columns(5, 2))  # the category lies in two files, as it may
    parquet_of(tmp_path / "hub" / last, mme_columns(7, 2))
    parquet_of(tmp_path / "hub" / first, mme_columns(0, 5))
    folder = fetched_rows(tmp_path, "mme", {"mme_val.jsonl": MME_ROWS})
    hub = TablesHub(tmp_path / "hub")
    get_pictures("mme", tmp_path, hub=hub)
    assert hub.asked == [second, last, first]  # and not the largest one, of 695 MB
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == {
        f"{2020 + k:06d}.png": jpeg(20, 10 + k, seed=k) for k in range(4)
    }


def test_a_shifted_mme_keeps_nothing(tmp_path: Path) -> None:
    parquet_of(
        tmp_path / "shifted.parquet", mme_columns(0, 9, shift=2)
    )  # the answers agree, the questions do not
    folder = fetched_rows(tmp_path, "mme", {"mme_val.jsonl": MME_ROWS})
    with pytest.raises(DataError, match="belongs to its question and answer"):
        get_pictures("mme", tmp_path, source=tmp_path / "shifted.parquet")
    assert not (folder / "images").exists()


def test_a_hub_that_cannot_be_asked_says_what_to_download(tmp_path: Path) -> None:
    fetched_rows(tmp_path, "mathvista", {"mathvista_mini_val.jsonl": mathvista_rows([1])})
    with pytest.raises(DataError, match=r"testmini-.*AI4Math/MathVista.*--from FILE"):
        get_pictures("mathvista", tmp_path, hub=TablesHub(tmp_path))


@pytest.mark.parametrize("content", [b"PAR1 but no table PAR1", b""])
def test_a_damaged_table_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    fetched_rows(tmp_path, "mathvista", {"mathvista_mini_val.jsonl": mathvista_rows([1])})
    with pytest.raises(DataError, match=r"bad\.parquet is not"):
        get_pictures("mathvista", tmp_path, source=tmp_path / "bad.parquet")


def test_rows_without_their_pictures_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"; fetch it: opengrit data get grit20 --pictures$"):
        load_examples("data/grit20")
    folder = fetched_rows(tmp_path, "vsr", VSR_ROWS)
    with pytest.raises(DataError, match=r"10 of 10 .*; fetch it: opengrit data get vsr --pictures --out"):
        load_examples(folder)
