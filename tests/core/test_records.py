"""Records survive the way through a file, bit for bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from full_record import RECORD
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrit.core.boxes import Box
from opengrit.core.errors import RunError
from opengrit.core.records import from_json, from_line, to_json, to_line
from opengrit.core.types import (
    Completion,
    Pointing,
    Record,
    Score,
    Section,
    Unjudged,
)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(
            RECORD, verdict=Unjudged("no route"), score=Score(None, {}, "no route"), step=None, advantage=None
        ),
        replace(RECORD, failure="picture is damaged", completion=Completion("")),
        replace(
            RECORD, example=replace(RECORD.example, boxes=(), boxes_known=False, split=None, key_words=())
        ),
    ],
    ids=["full", "unjudged", "failed", "without boxes"],
)
def test_a_record_read_back_equals_the_one_written(record: Record) -> None:
    line = to_line(record)
    assert from_line(line) == record
    assert "\n" not in line


def test_a_pointing_stands_in_unit_square_in_picture_pixels_and_as_written() -> None:
    (pointing,) = to_json(RECORD)["transcript"]["pointings"]
    # The picture is 200 x 100 and the model saw 100 x 50.
    assert pointing == {
        "box": [0.1, 0.1, 0.3, 0.5],
        "pixels": [20.0, 10.0, 60.0, 50.0],
        "written": [10.0, 5.0, 30.0, 25.0],
        "label": "dog",
        "section": "thought",
        "start": 11,
        "end": 26,
    }


def test_a_number_that_is_not_finite_is_never_written() -> None:
    for record in (replace(RECORD, advantage=float("nan")), replace(RECORD, score=Score(float("inf")))):
        with pytest.raises(ValueError, match="JSON"):
            to_line(record)


def test_half_a_surrogate_pair_from_a_model_survives() -> None:
    record = replace(RECORD, completion=Completion("\ud83d\u2028\n"))
    assert from_line(to_line(record)) == record
    to_line(record).encode("utf-8")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.pop("example"),
        lambda value: value["transcript"].pop("pointings"),
        lambda value: value["completion"].update(finish="later"),
        lambda value: value["transcript"]["pointings"][0].update(box=[0.5, 0, 0.1, 1]),
        lambda value: value["transcript"]["pointings"][0].update(written=[1, 2, 3]),
        lambda value: value.update(seen_size=None),
        lambda value: value.update(verdict=[]),
    ],
)
def test_json_that_is_no_record_is_a_run_error(spoil: object) -> None:
    value = json.loads(to_line(RECORD))
    spoil(value)  # type: ignore[operator]
    with pytest.raises(RunError):
        from_json(value)


@pytest.mark.parametrize("line", ["", "{", "[]", "null", "3"])
def test_a_line_that_is_no_record_is_a_run_error(line: str) -> None:
    with pytest.raises(RunError):
        from_line(line)


finite = st.floats(allow_nan=False, allow_infinity=False)
units = st.floats(0, 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, right = sorted(draw(st.tuples(units, units).filter(lambda pair: pair[0] != pair[1])))
    top, bottom = sorted(draw(st.tuples(units, units).filter(lambda pair: pair[0] != pair[1])))
    return Box(left, top, right, bottom)


@settings(max_examples=60, deadline=None)
@given(
    box=boxes(),
    written=st.tuples(finite, finite, finite, finite),
    label=st.none() | st.text(),
    text=st.text(),
    section=st.sampled_from(Section),
    total=st.none() | finite,
    parts=st.dictionaries(st.text(), st.none() | finite),
)
def test_any_record_survives_exactly(
    box: Box,
    written: tuple[float, float, float, float],
    label: str | None,
    text: str,
    section: Section,
    total: float | None,
    parts: dict[str, float | None],
) -> None:
    pointing = Pointing(box, label, section, 0, len(text), written)
    record = replace(
        RECORD,
        transcript=replace(RECORD.transcript, text=text, pointings=(pointing,)),
        score=Score(total, parts),
    )
    assert from_line(to_line(record)) == record


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to each value in some JSON."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value: dict[str, object], path: tuple[str | int, ...], wrong: object) -> dict[str, object]:
    changed = copy.deepcopy(value)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = wrong
    return changed


@pytest.mark.parametrize("wrong", [None, 5, 1.5, "x", True, [], {}, [None], {"a": None}], ids=repr)
def test_a_field_of_another_type_is_an_error_or_a_record_that_can_be_written(wrong: object) -> None:
    good = to_json(RECORD)
    for path in places(good):
        try:
            record = from_json(put(good, path, wrong))
        except RunError:
            continue
        assert from_line(to_line(record)) == record
        assert all(isinstance(text, str) for text in (record.example.question, record.completion.text))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("example", "question"), "example.question"),
        (("example", "id"), "example.id"),
        (("completion", "token_ids", 0), "completion.token_ids"),
        (("transcript", "pointings", 0, "start"), "transcript.pointings.start"),
        (("sample",), "sample"),
    ],
)
def test_a_null_in_a_record_is_named(path: tuple[str | int, ...], place: str) -> None:
    with pytest.raises(RunError, match=rf"{place} holds NoneType"):
        from_json(put(to_json(RECORD), path, None))
