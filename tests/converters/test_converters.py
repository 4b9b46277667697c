"""Records in other programs' formats are what those programs read, and say what the records say."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pyarrow.parquet as pq
import pytest
from full_record import RECORD
from oracles import oracle, pointing, write_run
from PIL import Image
from typer.testing import CliRunner

import opengrit
from opengrit.cli.app import app
from opengrit.converters import FORMATS, convert
from opengrit.converters.rows import COLUMNS
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RunError
from opengrit.core.records import to_json
from opengrit.core.types import Record, Unjudged

DOCS = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(4))
def test_an_oracles_coco_results_score_an_ap_of_one(seed: int, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    records = oracle(seed, tmp_path)
    done = convert(write_run(tmp_path / "run", records), "coco", tmp_path / "coco")
    assert done.num_records == len(records) - 2  # one row says nothing about boxes, one rollout failed
    truth = COCO(str(tmp_path / "coco" / "annotations.json"))
    scored = COCOeval(truth, truth.loadRes(str(tmp_path / "coco" / "results.json")), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[0] == pytest.approx(1.0, abs=1e-9)
    kept = [r for i, r in enumerate(records) if i not in (3, 4)]
    assert len(truth.getAnnIds()) == sum(len(r.example.boxes) for r in kept)
    images = truth.loadImgs(truth.getImgIds())
    assert [image["record"] for image in images] == [r.id for r in kept]
    assert len({image["file_name"] for image in images}) == len(images)
    for image in images:
        assert Image.open(tmp_path / "coco" / "images" / image["file_name"]).size == (320, 200)


def test_boxes_a_little_off_score_less_than_an_oracle(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def moved(record: Record) -> Record:
        boxes = (
            Box(b.left, b.top, b.right + 0.3 * (b.right - b.left) if b.right < 0.7 else b.right, b.bottom)
            for b in record.transcript.boxes
        )
        return replace(
            record, transcript=replace(record.transcript, pointings=tuple(pointing(b, None) for b in boxes))
        )

    convert(write_run(tmp_path / "run", [moved(r) for r in oracle(0, tmp_path)]), "coco", tmp_path / "coco")
    truth = COCO(str(tmp_path / "coco" / "annotations.json"))
    scored = COCOeval(truth, truth.loadRes(str(tmp_path / "coco" / "results.json")), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert 0.2 < scored.stats[0] < 0.9


def test_label_studio_gets_tasks_as_its_documentation_describes_them(tmp_path: Path) -> None:
    records = oracle(1, tmp_path)
    convert(write_run(tmp_path / "run", records), "label-studio", tmp_path / "ls")
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    config = ElementTree.fromstring((tmp_path / "ls" / "labeling_config.xml").read_text())
    root = Path((tmp_path / "ls" / "local_files_root.txt").read_text().strip())
    labels = {label.get("value") for label in config.iter("Label")}
    names = {config.find("RectangleLabels").get("name"), config.find("Image").get("name")}
    kept = [record for record in records if record.failure is None]
    assert len(tasks) == len(kept)
    for task, record in zip(tasks, kept, strict=True):
        for tag in config.iter():
            for value in (v for v in tag.attrib.values() if v.startswith("$")):
                assert value[1:] in task["data"]
        place = task["data"]["image"].removeprefix("/data/local-files/?d=")
        assert (root / unquote(place)).is_file()
        [prediction] = task["predictions"]
        wanted = [(record.transcript.boxes, prediction["result"])]
        if record.example.boxes_known:
            [annotation] = task["annotations"]
            assert annotation["ground_truth"] is True
            wanted.append((record.example.boxes, annotation["result"]))
        for boxes, results in wanted:
            assert len({result["id"] for result in results}) == len(results)
            for box, result in zip(boxes, results, strict=True):
                assert {result["from_name"], result["to_name"]} == names
                assert (result["type"], result["image_rotation"]) == ("rectanglelabels", 0)
                assert (result["original_width"], result["original_height"]) == (320, 200)
                value = result["value"]
                assert set(value.pop("rectanglelabels")) <= labels
                left, top, right, bottom = box.to_pixels(Size(100, 100))
                assert value == pytest.approx(
                    {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
                )


def test_fiftyone_gets_samples_with_detections_as_shares_of_the_picture(tmp_path: Path) -> None:
    records = oracle(2, tmp_path)
    convert(write_run(tmp_path / "run", records), "fiftyone", tmp_path / "fo")
    assert json.loads((tmp_path / "fo" / "metadata.json").read_text())["media_type"] == "image"
    samples = json.loads((tmp_path / "fo" / "samples.json").read_text())["samples"]
    for sample, record in zip(samples, records, strict=True):
        assert Path(sample["filepath"]).is_file()
        assert (sample["record"], sample["question"]) == (record.id, "Where?")
        assert sample["tags"] == ["unjudged" if record.score.total is None else "right"]
        for field, boxes in (("predicted", record.transcript.boxes), ("annotated", record.example.boxes)):
            assert sample[field]["_cls"] == "Detections"
            found = [one["bounding_box"] for one in sample[field]["detections"]]
            assert found == [[b.left, b.top, b.right - b.left, b.bottom - b.top] for b in boxes]


def test_tables_and_the_data_frame_say_the_same(tmp_path: Path) -> None:
    records = [*oracle(3, tmp_path), RECORD]
    run = write_run(tmp_path / "run", records)
    frame = opengrit.records(run)
    assert [*frame.columns] == [*COLUMNS, "parts/box_count", "parts/correct", "parts/tag_pairs"]
    for kind in ("csv", "parquet", "jsonl"):
        assert convert(run, kind, tmp_path / f"rows.{kind}").num_records == len(records)
    stored = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    with (tmp_path / "rows.csv").open(newline="") as stream:
        cells = [*csv.DictReader(stream)]
    for number, record in enumerate(records):
        row, line, stored_row = frame.iloc[number], lines[number], stored[number]
        for name, value in line.items():
            assert stored_row[name] == value, name
            text = cells[number][name]
            assert text == (
                "" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
            )
            if not isinstance(value, list) and not (value is None and pd.isna(row[name])):
                assert row[name] == value, name
        size = record.example.picture_size
        assert row["boxes"] == [pytest.approx(b.to_pixels(size), abs=0.01) for b in record.transcript.boxes]
        assert row["image"] == (record.example.image if record is not RECORD else "a.png")


def test_pictures_are_found_where_images_says_they_are_now(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [RECORD])
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    assert opengrit.records(run, images=tmp_path)["image"][0] == str(tmp_path / "a.png")


def test_what_is_there_is_not_overwritten_and_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [replace(RECORD, failure="no picture")])
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(RunError, match=r"never overwritten, .*mine.csv is; choose another --out"):
        convert(run, "csv", tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    with pytest.raises(RunError, match="has none that coco can hold"):
        convert(run, "coco", tmp_path / "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "run"]


@pytest.mark.parametrize("to", FORMATS)
def test_the_command_writes_every_format_and_says_how_many_records(to: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", oracle(0, tmp_path, rows=2))
    done = CliRunner().invoke(app, ["records", str(run), "--to", to, "--out", str(tmp_path / "out")])
    assert (done.exit_code, done.output.split(":")[0]) == (0, "2 records")
    assert (tmp_path / "out").exists()


# -- docs/records.md -------------------------------------------------------------------------------------------------


def documented(section: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    body = DOCS.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = [re.split(r"\s+\|\s+", line.strip("| ")) for line in body.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_page_lists_the_columns() -> None:
    assert {name: cells[0] for name, cells in documented("In Python").items()} == COLUMNS


def fields_of(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            part = "NAME" if place == "score.parts" else name
            yield from fields_of(inner, f"{place}.{part}" if place else part)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from fields_of(value[0], f"{place}[]")
    else:
        yield place, value


def test_the_page_lists_every_field_of_a_line_with_its_type() -> None:
    kinds = {"text": str, "integer": int, "number": float, "boolean": bool, "list": list, "null": type(None)}
    full = [RECORD, replace(RECORD, verdict=Unjudged("outage"))]
    found: dict[str, set[type]] = {}
    for record in full:
        for place, value in fields_of(to_json(record)):
            found.setdefault(place, set()).add(type(value))
    page = documented("A line of records.jsonl")
    assert page.keys() == found.keys()
    for place, (kind, _) in page.items():
        assert found[place] <= {kinds[name] for name in kind.split(" or ")}, place
