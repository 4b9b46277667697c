"""What `opengrit records` writes, read by supervision and by Label Studio's own package."""

from __future__ import annotations

import json
import sys

import pytest
from oracles import oracle, write_run

from engines import environment, run
from opengrit.converters import convert

pytestmark = pytest.mark.needs("readers")


def said(script: str, *arguments: object):
    """What a script that has the overlay prints as its last line, JSON."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return json.loads(run(command, environment("readers")).splitlines()[-1])


SUPERVISION = """
import json, sys, supervision
folder = sys.argv[1]
found = supervision.DetectionDataset.from_coco(folder + "/images", folder + "/annotations.json")
print(json.dumps([[list(picture.shape), boxes.xyxy.tolist()] for _, picture, boxes in found]))
"""


def test_supervision_reads_pictures_and_boxes(tmp_path):
    records = oracle(1, tmp_path)
    convert(write_run(tmp_path / "run", records), "coco", tmp_path / "coco")
    kept = [r for r in records if r.failure is None and r.example.boxes_known]
    for (shape, boxes), record in zip(said(SUPERVISION, tmp_path / "coco"), kept, strict=True):
        assert shape == [200, 320, 3]
        wanted = [box.to_pixels(record.example.picture_size) for box in record.example.boxes]
        assert boxes == [pytest.approx(box, abs=1e-3) for box in wanted]


LABEL_STUDIO = """
import json, sys, pathlib
from label_studio_sdk.label_interface import LabelInterface
folder = pathlib.Path(sys.argv[1])
interface = LabelInterface((folder / "labeling_config.xml").read_text())
interface.validate()
errors = []
for task in json.loads((folder / "tasks.json").read_text()):
    for one in (*task["predictions"], *task.get("annotations", ())):
        errors += interface.validate_prediction(one, return_errors=True)
    errors += [tag.value_name for tag in interface.objects if tag.value_name not in task["data"]]
print(json.dumps(errors))
"""


def test_label_studio_takes_the_configuration_and_every_task(tmp_path):
    convert(write_run(tmp_path / "run", oracle(2, tmp_path)), "label-studio", tmp_path / "ls")
    assert said(LABEL_STUDIO, tmp_path / "ls") == []
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    first = next(task for task in tasks if task["predictions"][0]["result"])
    first["predictions"][0]["result"][0]["value"]["width"] = "wide"
    (tmp_path / "ls" / "tasks.json").write_text(json.dumps(tasks))
    assert said(LABEL_STUDIO, tmp_path / "ls") != []
