"""The file of rows: on the disk when it says so, whole at every moment, one writer, nothing of another program's lost."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from opengrit.annotation.row_file import FileChanged, RowFile
from opengrit.core.errors import DataError, RunError


def values_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "mine.jsonl"


def test_rows_are_added_corrected_and_removed_in_their_places(path):
    rows = RowFile(path)
    first, second, third = (rows.append({"n": n}) for n in range(3))
    rows.replace(second, {"n": "one, corrected \u00e9"})
    rows.remove(first)
    rows.append({"n": 3})
    assert values_in(path) == [{"n": "one, corrected \u00e9"}, {"n": 2}, {"n": 3}]
    assert [row.values["n"] for row in rows.rows] == ["one, corrected \u00e9", 2, 3]
    assert [row.id for row in rows.rows][:2] == [second.id, third.id]
    rows.close()
    assert os.listdir(path.parent) == ["mine.jsonl"]
    again = RowFile(path)
    assert [row.values["n"] for row in again.rows] == ["one, corrected \u00e9", 2, 3]
    again.close()


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b'{"n": 1}\n{"n": 2, "questi', b'{"n": 1}\n'),
        (b'{"n": 1', b""),
        (b'{"n": 1}', b'{"n": 1}\n'),
        (b'\xef\xbb\xbf{"n": 1}\r\n\r\n', b'\xef\xbb\xbf{"n": 1}\r\n\r\n'),
    ],
)
def test_a_line_that_a_crash_cut_off_is_cut_and_a_whole_one_is_kept(path, content, kept):
    path.parent.mkdir()
    path.write_bytes(content)
    rows = RowFile(path)
    assert path.read_bytes() == kept
    assert [row.values for row in rows.rows] == ([{"n": 1}] if b'{"n": 1}' in kept else [])
    rows.append({"n": 5})
    rows.close()
    assert path.read_bytes() == kept + b'{"n": 5}\n'


@pytest.mark.parametrize(
    "content",
    [
        '{"n": 1}\nnot json\n{"n": 2}\n',
        '[1, 2]\n{"n": 2}\n',
        '[\n{"n": 1}\n]',  # a list that an editor wrote
        'not json\n{"n": 2, "questi',
        '{"n": 1}\n{"n": 2,}',  # by hand, and not well
    ],
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DataError, match=r"line \d of .*mine.jsonl .*name another --out"):
        RowFile(path)
    assert path.read_text() == content


def test_a_second_writer_is_refused_before_and_after_a_correction(path):
    rows = RowFile(path)
    row = rows.append({"n": 1})
    for _ in range(2):
        with pytest.raises(RunError, match=r"another one has .* open"):
            RowFile(path)
        row = rows.replace(row, {"n": 2})
    rows.close()
    RowFile(path).close()


@pytest.mark.parametrize("how", ["in place", "as an editor does"])
def test_what_another_program_wrote_is_not_written_over(path, how):
    rows = RowFile(path)
    row = rows.append({"n": 1})
    theirs = '{"n": "theirs"}\n'
    if how == "in place":
        path.write_text(theirs)
    else:
        path.with_suffix(".new").write_text(theirs)
        path.with_suffix(".new").replace(path)
    for change in (lambda: rows.append({"n": 2}), lambda: rows.remove(row), lambda: rows.replace(row, {})):
        with pytest.raises(FileChanged, match="nothing was saved"):
            change()
    assert path.read_text() == theirs
    rows.reload()
    rows.append({"n": 2})
    rows.close()
    assert values_in(path) == [{"n": "theirs"}, {"n": 2}]


def test_a_line_that_another_program_is_writing_is_not_cut(path):
    rows = RowFile(path)
    rows.append({"n": 1})
    with path.open("ab") as theirs:
        theirs.write(b'{"n": "half')
    with pytest.raises(DataError, match="line 2 of"):
        rows.reload()
    assert path.read_bytes() == b'{"n": 1}\n{"n": "half'
    rows.close()


def test_a_correction_keeps_a_link_and_the_files_permissions(path, tmp_path):
    path.parent.mkdir()
    path.touch(mode=0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    rows = RowFile(link)
    rows.replace(rows.append({"n": 1}), {"n": 2})
    rows.close()
    assert link.is_symlink()
    assert values_in(path) == [{"n": 2}]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_file_and_rows_as_they_were(path):
    rows = RowFile(path)
    row = rows.append({"n": 1})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))  # as a disk with five bytes left
    try:
        for change in (lambda: rows.append({"n": "x" * 100}), lambda: rows.replace(row, {"n": "x" * 100})):
            with pytest.raises(RunError, match="check the folder and the free space"):
                change()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [one.values for one in rows.rows] == [{"n": 1}]
    assert os.listdir(path.parent) == ["mine.jsonl"]
    rows.append({"n": 2})
    rows.close()
    assert values_in(path) == [{"n": 1}, {"n": 2}]


def test_killed_at_any_moment_every_row_said_to_be_saved_is_there(path):
    """A process adds rows and corrects its last one, saying each time what is saved; it is killed forty times."""
    rng = random.Random(5)
    told = 0
    for kills in range(1, 41):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # nothing but the file is touched here, and the process is killed
            rows = RowFile(path)
            number = len(rows.rows)
            while True:
                row = rows.append({"n": number, "text": "x" * 300})
                rows.replace(row, {"n": number, "text": "corrected" * 40})
                number += 1
                os.write(writing, bytes([1]))
        os.close(writing)
        os.read(reading, 1)
        told += 1
        for _ in range(rng.randrange(4)):
            told += len(os.read(reading, 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told += len(os.read(reading, 1_000_000))
        os.close(reading)
        rows = RowFile(path)
        assert [row.values["n"] for row in rows.rows] == list(range(len(rows.rows)))
        corrected = sum(str(row.values["text"]).startswith("corrected") for row in rows.rows)
        assert corrected >= told
        assert len(rows.rows) - told <= kills  # of each process one that it could not tell any more
        rows.close()
    assert os.listdir(path.parent) == ["mine.jsonl"]
