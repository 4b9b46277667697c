"""The notebooks of examples/ run from top to bottom and show what they promise."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def executed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(
        "PYTHONPATH", str(EXAMPLES.parent / "src") + os.pathsep + os.environ.get("PYTHONPATH", "")
    )
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell, kind: str) -> list[str]:
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def said(cell, stream: str) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == stream)


def test_an_answer_shows_itself_with_its_boxes(tmp_path, monkeypatch):
    loading, asking, values, many, drawing = executed("ask_and_look.ipynb", tmp_path, monkeypatch)
    assert loading.outputs == []  # quiet
    [html] = shown(asking, "text/html")
    assert "data:image/" in html
    assert "og-box" in html
    assert shown(asking, "text/plain")[0].startswith("Answer(")
    assert len(shown(asking, "text/plain")[0]) < 120
    assert said(values, "stdout").startswith("Answer(")
    assert len(said(many, "stdout").splitlines()) == 4
    assert "asking" in said(many, "stderr")  # tqdm's bar
    assert shown(drawing, "image/png")


def test_twenty_of_your_own_are_trained_on_and_become_a_table(tmp_path, monkeypatch):
    _, training, table, means, asking = executed("train_on_twenty.ipynb", tmp_path, monkeypatch)
    assert "training" in said(training, "stderr")
    assert "grounding_iou" in shown(table, "text/html")[0]
    assert shown(means, "text/html")
    assert "data:image/" in shown(asking, "text/html")[0]
