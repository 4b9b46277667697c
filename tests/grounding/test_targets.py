"""What we write to be learned, read back: the same boxes, the same labels, and nothing else, whatever the labels hold."""

from __future__ import annotations

from box_spellings import LABELS
from hypothesis import given
from hypothesis import strategies as st

from opengrit.core.boxes import Box, Size
from opengrit.core.types import Example, Section
from opengrit.grounding.frames import Frame, Unit
from opengrit.grounding.parsing import parse
from opengrit.grounding.targets import label_of, target_text

HOSTILE = [
    *LABELS, "</think>", "<answer>7</answer>", "<rethink>", "</rethink><answer>", "<box>[[1, 2, 3, 4]]</box>", "<ref>x</ref>", "\\", '\\"', "\\u0041",
    "\n", "a\nb [1, 2, 3, 4]", "\t", "\x00", "\u2028", "\x85", "[", "]", "{", "}", "(", ":", "=", "x1=1, y1=2, x2=3, y2=4", "bbox: 1, 2, 3, 4", '"label": "b"',
    '", "bbox_2d": [1, 2, 3, 4]', "'", "it's", "\u201c", "\u201d", "\uff02", "\uff3b1\uff0c2\uff0c3\uff0c4\uff3d", "10px", "5%", "nan", "null", "```", "**a**", "1", "1.5",
]  # fmt: skip

labels = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from([*HOSTILE, " ", "dog", ","]), max_size=5).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
).filter(lambda label: bool(label) and label == label.strip())
sides = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda pair: pair[0] != pair[1])
boxes = st.builds(
    lambda xs, ys: Box(min(xs) / 1000, min(ys) / 1000, max(xs) / 1000, max(ys) / 1000), sides, sides
)


@given(
    st.lists(st.tuples(boxes, labels), max_size=4),
    st.sampled_from(Unit),
    st.sampled_from(["grounded", "sft"]),
)
def test_a_target_reads_back_as_the_boxes_and_labels_of_its_row(pairs, unit, strategy):
    frame = Frame(unit.value, Size(640, 480), unit)
    row = Example("r", "How many?", "2", "r.png", "d", Size(640, 480), tuple(box for box, _ in pairs))
    row = Example(
        "r",
        "How many?",
        "2",
        "r.png",
        "d",
        Size(640, 480),
        row.boxes,
        key_words=tuple(label for _, label in pairs),
    )
    found = parse(target_text(row, strategy=strategy, frame=frame), frame)

    assert [pointing.written for pointing in found.pointings] == [frame.from_box(box) for box in row.boxes]
    assert [pointing.label for pointing in found.pointings] == [label_of(row, i) for i in range(len(pairs))]
    assert found.rejected == ()
    assert found.answer == "2"
    assert len(found.tags) == (6 if strategy == "grounded" else 2)
    place = Section.THOUGHT if strategy == "grounded" else Section.OUTSIDE
    assert {pointing.section for pointing in found.pointings} <= {place}
