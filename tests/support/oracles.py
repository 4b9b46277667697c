"""Runs of a model that writes exactly the annotated boxes."""

from __future__ import annotations

import random
from pathlib import Path

from full_record import record_of
from PIL import Image

from opengrit.core.boxes import Box, Size
from opengrit.core.types import Example, Pointing, Record, Score, Section, Transcript, Unjudged, Verdict
from opengrit.runs.folder import RunDir


def write_run(folder: Path, records: list[Record]) -> Path:
    run = RunDir.create(folder, recipe="evaluate: {model: {name: oracle}}\n")
    with run.append_records() as writer:
        for record in records:
            writer.write_record(record)
    return folder


def pointing(box: Box, label: str | None) -> Pointing:
    return Pointing(box, label, Section.THOUGHT, 0, 1, (0.0, 0.0, 1.0, 1.0))


def oracle(seed: int, folder: Path, rows: int = 25) -> list[Record]:
    """Random rows whose boxes the model wrote exactly, some twice, in a shuffled order."""
    dice = random.Random(seed)
    Image.new("RGB", (320, 200), "grey").save(folder / "grey & <green>.png")
    found = []
    for number in range(rows):
        boxes = []
        for _ in range(dice.choice((0, 1, 1, 2, 7))):
            left, top = dice.uniform(0, 0.8), dice.uniform(0, 0.8)
            boxes.append(Box(left, top, left + dice.uniform(0.01, 0.2), top + dice.uniform(0.01, 0.2)))
        example = Example(
            id=f"r{number}",
            question="Where?",
            answer="there",
            image=str(folder / "grey & <green>.png"),
            dataset="random",
            picture_size=Size(320, 200),
            boxes=tuple(boxes),
            boxes_known=number != 3,
        )
        written = [*dice.sample(boxes, len(boxes)), *boxes[:1]]
        transcript = Transcript(
            'text, "quoted"\nand <b>bold</b>',
            None,
            None,
            "there",
            tuple(pointing(b, f'a "{i}"') for i, b in enumerate(written)),
            (),
            (),
        )
        found.append(
            record_of(
                example,
                transcript,
                verdict=Verdict(True, 1.0) if number % 5 else Unjudged("outage"),
                score=Score(
                    1.0 if number % 5 else None, {"correct": 1.0 if number % 5 else None, "tag_pairs": 0.5}
                ),
                frame="unit",
                failure="no picture" if number == 4 else None,
            )
        )
    return found
