"""Each box that is written is a box or a rejection, whatever its spelling: a generator writes them, and counts."""

from __future__ import annotations

import random
from itertools import pairwise

from box_spellings import Spelling, clean, damaged, per_cent

from opengrit.core.boxes import Size
from opengrit.core.types import Rejection, Transcript
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse

PIXELS = Frame.named("pixels", Size(1000, 800))


def read(spelling: Spelling) -> Transcript:
    return parse(spelling.text, PIXELS)


def test_every_spelling_of_a_box_is_that_box_with_its_label():
    wrong, count = [], 4_000
    for spelling in clean(random.Random(0), count):
        found = read(spelling)
        boxes = tuple(pointing.written for pointing in found.pointings)
        labels = [pointing.label for pointing in found.pointings]
        if (
            boxes != spelling.boxes
            or found.rejected
            or (spelling.label is not None and labels != [spelling.label])
        ):
            wrong.append((spelling.name, spelling.text, boxes, labels, found.rejected))
    assert wrong == []


def test_a_box_in_per_cent_is_rejected_once_as_written_in_another_unit():
    wrong = []
    for spelling in per_cent(random.Random(1), 1_000):
        found = read(spelling)
        if found.pointings or [one.reason for one in found.rejected] != [Rejection.ANOTHER_UNIT]:
            wrong.append((spelling.name, spelling.text, found.pointings, found.rejected))
    assert wrong == []


def test_of_damaged_boxes_each_is_one_box_or_one_rejection():
    wrong = []
    for spelling in damaged(random.Random(2), 3_000):
        found = read(spelling)
        spans = sorted((one.start, one.end) for one in (*found.pointings, *found.rejected))
        apart = all(before[1] <= after[0] for before, after in pairwise(spans))
        known = {box for pointing in found.pointings for box in [pointing.written]} <= set(spelling.boxes)
        if len(spans) != len(spelling.boxes) or not apart or not known:
            wrong.append((spelling.name, spelling.text, found.pointings, found.rejected))
    assert wrong == []
