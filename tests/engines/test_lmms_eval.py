"""The real lmms-eval finds our model and our tasks, and its figures are those of `opengrit eval` on the same rows."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from engines import ROOT, environment, run
from opengrit.data.stickers.sets import write as write_stickers
from opengrit.evaluation.metrics import (
    box_precision,
    box_recall,
    estimate,
    follows_format,
    grounding_iou,
    right,
)
from opengrit.evaluation.run import run_evaluation
from opengrit.harness import TASKS
from opengrit.recipes.evaluation_recipe import EvalRecipe

pytestmark = pytest.mark.needs("lmms_eval")

MODEL = "tiny-qwen2.5-vl"
ROWS = 24
QUANTITIES = {
    "rule_accuracy": right, "grounding_iou": grounding_iou, "box_recall": box_recall, "box_precision": box_precision,
    "follows_format": follows_format,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with sticker rows where the tasks look for their files, and what makes our entry point known."""
    folder = tmp_path_factory.mktemp("harness")
    for name, file in (
        ("stickers/spatial", "vsr/vsr_val.jsonl"),
        ("stickers/count", "treebench/treebench.jsonl"),
    ):
        target = folder / "benchmarks" / file
        target.parent.mkdir(parents=True)
        source = write_stickers(name, folder / name.replace("/", "-"))
        target.write_text("".join(source.read_text().splitlines(keepends=True)[:ROWS]))
        (target.parent / "images").symlink_to(source.parent / "images")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "lmms_eval.models"
    ]
    made = folder / "site" / "opengrit_here-1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: opengrit-here\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in known.items())
    (made / "entry_points.txt").write_text(f"[lmms_eval.models]\n{lines}")
    return folder


@pytest.fixture(scope="module")
def results(place):
    """lmms-eval's results file for two of our tasks, by our model."""
    env = environment("lmms_eval")
    env["PYTHONPATH"] = os.pathsep.join([str(place / "site"), env["PYTHONPATH"]])
    env |= {"HF_HOME": str(place / "cache"), "HF_DATASETS_OFFLINE": "1"}
    script = f"import os, runpy, sys; os.chdir({str(place)!r}); sys.argv[0] = 'lmms_eval'; runpy.run_module('lmms_eval', run_name='__main__')"
    command = [sys.executable, "-c", script, "--model", "opengrit", "--model_args", f"pretrained={MODEL}"]
    command += [
        "--tasks",
        "opengrit_vsr,opengrit_treebench",
        "--include_path",
        str(TASKS),
        "--batch_size",
        "8",
    ]
    command += ["--output_path", str(place / "out"), "--log_samples"]
    said = run(command, env)
    [found] = Path(place / "out").rglob("*_results.json")
    return json.loads(found.read_text())["results"], said


@pytest.mark.parametrize(
    ("task", "file"),
    [("opengrit_vsr", "vsr/vsr_val.jsonl"), ("opengrit_treebench", "treebench/treebench.jsonl")],
)
def test_the_harness_has_the_figures_of_an_evaluation_here(task, file, results, place):
    there, _ = results
    recipe = EvalRecipe.model_validate(
        {
            "model": {"name": MODEL},
            "data": [
                {
                    "file": str(place / "benchmarks" / file),
                    "images": str(place / "benchmarks" / file.split("/")[0] / "images"),
                }
            ],
        }
    )
    _, records = run_evaluation(recipe, place / f"run-{task}", quiet=True)
    assert len(records) == ROWS
    shown = {}
    for name, quantity in QUANTITIES.items():
        ours = estimate(records, quantity).value
        theirs = there[task][f"{name},none"]
        shown[name] = (round(theirs, 4), round(ours, 4))
        assert theirs == pytest.approx(ours, abs=2e-3), name
    print(task, shown)
    assert 0.0 < shown["grounding_iou"][1] < 1.0
