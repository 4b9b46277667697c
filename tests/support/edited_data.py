"""A small data set in GRIT's rows, the ways to edit it that a command has to notice, and what the command says of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_random
from click.testing import Result
from endpoint_stub import Stub
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.data import write

Row = dict[str, Any]
NUM_ROWS = 4


def data_set(folder: Path) -> Path:
    """A file of four rows with their pictures beside it in `pictures`; each row has an id, which `ask` reads."""
    (folder / "pictures").mkdir(parents=True)
    examples = tiny_random.examples(folder / "pictures", NUM_ROWS)
    path = write(examples, folder / "rows.jsonl", images=folder / "pictures")
    save(path, [row | {"id": f"r{number}"} for number, row in enumerate(rows_of(path))])
    return path


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def save(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _edit_rows(change: Callable[[list[Row]], list[Row]]) -> Callable[[Path], None]:
    return lambda path: save(path, change(rows_of(path)))


def _changed(**fields: Any) -> Callable[[Path], None]:
    return _edit_rows(lambda rows: [rows[0], rows[1] | fields, *rows[2:]])


def _exchange_picture(path: Path) -> None:
    tiny_random.picture(path.parent / "pictures", "1.png", width=112, height=84, seed=99)


def _rename_picture(path: Path) -> None:
    (path.parent / "pictures" / "1.png").rename(path.parent / "pictures" / "renamed.png")
    _changed(image="renamed.png")(path)


# Each takes the path of the rows and edits them, or a picture; all of them touch the second row.
EDITS: dict[str, Callable[[Path], None]] = {
    "insert": _edit_rows(lambda rows: [rows[0], rows[1] | {"question": "Cats?", "id": "new"}, *rows[1:]]),
    "delete": _edit_rows(lambda rows: [rows[0], *rows[2:]]),
    "reorder": _edit_rows(lambda rows: [rows[0], rows[2], rows[1], *rows[3:]]),
    "answer": _changed(answer=7),
    "question": _changed(question="How many cats?"),
    "box": _changed(bboxs=[[0, 0, 40, 40]]),
    "picture": _exchange_picture,
    "name": _rename_picture,
}


ANSWER = '<think>{"bbox_2d": [14, 28, 56, 84]}</think><rethink>so</rethink><answer>1</answer>'
# What a message says of each edit.
SAID = {
    "insert": r"row 2 \(rows:2\): inserted",
    "delete": r"row 2 then \(rows:2\): deleted",
    "reorder": r"row [23] \(rows:[23]\): was row [23]",
    "answer": r"row 2 \(rows:2\): answer changed, '1' then, '7' now",
    "question": r"row 2 \(rows:2\): question changed",
    "box": r"row 2 \(rows:2\): boxes changed",
    "picture": r"row 2 \(rows:2\): picture exchanged \S+1.png",
    "name": r"row 2 \(rows:2\): picture was \S+1.png, and is \S+renamed.png with the same content",
}
ANNOTATION = ("answer", "box")


def _told(result: Result) -> str:
    return " ".join(result.output.split())


def command(*words: object, code: int = 0) -> str:
    """All that a command says; it must end with `code`."""
    result = CliRunner().invoke(app, list(map(str, words)), env={"OPENAI_API_KEY": "none"})
    assert result.exit_code == code, (_told(result), result.exception)
    return _told(result)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged."""
    return " ".join(record.getMessage() for record in caplog.records)


def evaluation(path: Path, stub: Stub, *more: object) -> list[object]:
    """The command that evaluates a served model on these rows, into `run` beside them."""
    asked = ["eval", "--endpoint", stub.url, "--model", "toy", "--frame", "qwen2_5_vl", "--quiet"]
    return [*asked, "--data", path, "--images", path.parent / "pictures", "--out", path.parent / "run", *more]
