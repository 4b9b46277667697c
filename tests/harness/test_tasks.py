"""The tasks that lmms-eval reads from our folder: their files, their functions, and figures worked out by hand."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path

import datasets
import pytest
import yaml
from PIL import Image

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError, RecipeError
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.harness import TASKS, tasks
from opengrit.harness.replies import in_thousandths

ROOT = Path(__file__).parents[2]
NAMES = {"opengrit_vsr", "opengrit_tallyqa", "opengrit_ovdeval_position", "opengrit_treebench"}
ROW = {
    "question": "How many dogs are there?", "answer": 2, "image": "a.png", "width": 200, "height": 100,
    "bboxs": [[0, 0, 100, 100], [100, 0, 200, 100]], "dataset": "tallyqa",
}  # fmt: skip


class _Named(yaml.SafeLoader):
    """Reads `!function a.b.c` as lmms-eval does: the object of that name."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode):
    module, _, name = loader.construct_scalar(node).rpartition(".")
    return getattr(importlib.import_module(module), name)


_Named.add_constructor("!function", _function)


def task_of(file: Path) -> dict:
    own = yaml.load(file.read_text(), _Named)
    return yaml.load((TASKS / own["include"]).read_text(), _Named) | own


FILES = sorted(TASKS.glob("*.yaml"))


def test_there_is_a_task_for_each_set_and_the_package_brings_the_folder():
    assert {task_of(file)["task"] for file in FILES} == NAMES
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "harness/lmms_eval_tasks/*" in packaged["opengrit"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_tasks_functions_are_there_and_its_metrics_are_those_that_are_computed(file):
    task = task_of(file)
    for key in ("process_docs", "doc_to_visual", "doc_to_text", "doc_to_target", "process_results"):
        assert callable(task[key]), key
    metrics = [one["metric"] for one in task["metric_list"]]
    assert set(metrics) <= set(tasks.QUANTITIES)
    assert all(one["aggregation"] is tasks.mean for one in task["metric_list"])
    assert ("box_recall" in metrics) == ("box_precision" in metrics)  # a list of every box has recall 1
    assert task["reasoning_tags"] == "none"  # else lmms-eval takes the thought away, and its boxes
    assert task["lmms_eval_specific_kwargs"]["opengrit"] == {"pre_prompt": "", "post_prompt": ""}


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """A benchmark's folder as `opengrit data get` makes it, read as lmms-eval reads it."""
    folder = tmp_path / "benchmarks" / "tallyqa"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (200, 100), "red").save(folder / "images" / "a.png")
    rows = [ROW, ROW | {"answer": "none", "bboxs": []}, ROW | {"answer": [0, 0, 100, 50]}]
    (folder / "tallyqa_val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    task = task_of(TASKS / "tallyqa.yaml")
    read = datasets.load_dataset(
        task["dataset_path"], **task["dataset_kwargs"], cache_dir=str(tmp_path / "cache")
    )
    return task["process_docs"](read[task["test_split"]])


def test_a_document_is_the_row_with_its_picture(documents):
    assert len(documents) == 3
    example = tasks.example_of(documents[0])
    assert (example.id, example.answer, example.dataset) == ("tallyqa_val:1", "2", "tallyqa")
    assert example.boxes == (Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0))
    [picture] = tasks.pictures(documents[0])
    assert picture.size == (200, 100)
    assert (
        tasks.question(documents[0], {"pre_prompt": "Q: ", "post_prompt": " A:"})
        == "Q: How many dogs are there? A:"
    )
    assert tasks.question(documents[0]) == "How many dogs are there?"
    assert [tasks.expected(document) for document in documents] == ["2", "none", "[0, 0, 100, 50]"]
    with pytest.raises(DataError, match="question"):
        tasks.example_of(documents[0] | {"line": "{}"})


REPLY = "<think>{} and {}</think><rethink>two</rethink><answer>2</answer>"


def test_the_figures_are_those_worked_out_by_hand(documents):
    # One of two boxes is found whole: recall (1 + 0) / 2. Of the two that are written one is whole and one is the upper half of
    # the same box (IoU 1/2): precision (1 + 1/2) / 2. Their union is half of the annotated one.
    found = tasks.scores(documents[0], [REPLY.format([0, 0, 500, 1000], [0, 0, 500, 500])])
    assert found == pytest.approx(
        {
            "rule_accuracy": 1.0,
            "grounding_iou": 0.5,
            "box_recall": 0.5,
            "box_precision": 0.75,
            "follows_format": 1.0,
        }
    )
    # Every box there could be: all are found, and hardly one of them is one. (0 to 500 and 500 to 1000 are in the grid.)
    many = [[x, 0, x + 500, 1000] for x in range(0, 501, 50)]
    listed = tasks.scores(documents[0], [f"<think>{many}</think><rethink>2</rethink><answer>2</answer>"])
    assert listed["box_recall"] == 1.0
    assert listed["box_precision"] < 0.7


def test_a_reply_without_boxes_or_tags_is_an_answer_and_nothing_else(documents):
    plain = tasks.scores(documents[0], ["2"])
    assert plain == {
        "rule_accuracy": 1.0, "grounding_iou": 0.0, "box_recall": 0.0, "box_precision": 0.0, "follows_format": 0.0,
    }  # fmt: skip
    assert tasks.scores(documents[0], ["3"])["rule_accuracy"] == 0.0
    assert "grounding_iou" not in tasks.scores(documents[1], ["none"])  # the row has no boxes
    assert "rule_accuracy" not in tasks.scores(
        documents[2], ["[0, 0, 500, 500]"]
    )  # no rule says whether a box is right


def test_boxes_are_read_in_the_frame_that_is_named(documents, monkeypatch):
    reply = REPLY.format([0, 0, 100, 100], [100, 0, 200, 100])
    assert tasks.scores(documents[0], [reply])["grounding_iou"] < 0.1
    monkeypatch.setenv(tasks.FRAME_VARIABLE, "pixels")
    assert tasks.scores(documents[0], [reply])["grounding_iou"] == 1.0
    monkeypatch.setenv(tasks.FRAME_VARIABLE, "inches")
    with pytest.raises(RecipeError, match="thousand or pixels"):
        tasks.scores(documents[0], [reply])


def test_the_mean_of_nothing_is_no_number():
    assert tasks.mean([1.0, 0.0, 0.5]) == 0.5
    assert str(tasks.mean([])) == "nan"


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "internvl"])
def test_a_reply_in_thousandths_has_the_same_boxes_and_words(model_type):
    frame = Frame.for_model_type(model_type, seen_size=Size(168, 112))
    written = frame.from_box(Box(0.125, 0.25, 0.5, 0.75))
    text = f'<think>a {{"bbox_2d": {json.dumps(written)}, "label": "dog 3"}} and [9999, 1, 2, 3].</think><rethink>one</rethink><answer>1'
    ours = parse(text, frame)
    theirs = parse(
        in_thousandths(ours),
        Frame("thousand", Size(168, 112), Frame.for_model_type("internvl", seen_size=Size(1, 1)).unit),
    )
    assert len(ours.boxes) == len(theirs.boxes) == 1
    for one, other in zip(ours.boxes, theirs.boxes, strict=True):
        for side in ("left", "top", "right", "bottom"):
            assert getattr(one, side) == pytest.approx(getattr(other, side), abs=1e-5)
    assert (theirs.answer, theirs.rethink, theirs.pointings[0].label) == ("1", "one", "dog 3")
    assert [r.reason for r in theirs.rejected] == []  # what was no box is none in any frame
    assert ours.rejected


def test_a_text_without_an_answer_is_none_there_either(documents):
    ours = parse("2", Frame.for_model_type("internvl", seen_size=Size(100, 100)))
    assert ours.answer is None  # the prompt asks for tags
    assert tasks.scores(documents[0], [in_thousandths(ours)])["rule_accuracy"] == 0.0
