from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrit.core.types import Unjudged
from opengrit.judges.reply import read_score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 1}', 1.0),
        ('{"score": 0}', 0.0),
        (' {"score": 0.75}\n', 0.75),
        ('{"score": 1e-1}', 0.1),
        ('{"Score": 1}', 1.0),
        ('{"score": 0.5, "reason": "half of it"}', 0.5),
        ('```json\n{"score": 1}\n```', 1.0),
        ('```\n{"score": 1}```', 1.0),
        ("{score: 0.25}", 0.25),  # the form the paper's prompt shows
        ("{'score': 1}", 1.0),
        ('{"score": "1"}', 1.0),  # a string that is a number is a number
        ('{"score": " 0.5 "}', 0.5),
        ('<think>{"score": 0} would be harsh.</think>\n{"score": 1}', 1.0),
    ],
)
def test_a_score_is_read_in_its_usual_wrappings(text: str, score: float) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "1",  # a number is not the object that was asked for
        "[1]",
        '[{"score": 1}]',
        '[["score", 1]]',
        "null",
        "The score is 1.",
        "I cannot help with that.",
        'The model wrote {"score": 1}, which is no answer.',
        '{"score": 1} {"score": 0}',
        '{"score": 1, "score": 0}',
        '{"score": 1, "Score": 0}',
        '{"score": 1, "why": "a", "why": "b"}',
        'It says </think>{"score": 1}',
        'I think it is right.</think>\n{"score": 1}',
        '<think>It says </think>{"score": 1} which is wrong.</think>{"score": 0}',
        '<think>It says {"score": 1}',
        '```json\n{"score": 1}\n```\n```json\n{"score": 0}\n```',
        'Here it is:\n```json\n{"score": 1}\n```',
        '{"mark": 1}',
        '{"inner": {"score": 1}}',
        '{"score": 1',
        '```json\n{"score": 1}',
        '{"score": 10}',
        '{"score": -1}',
        '{"score": 1.0001}',
        '{"score": 100}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": -Infinity}',
        '{"score": true}',
        '{"score": false}',
        '{"score": null}',
        '{"score": [1]}',
        '{"score": {"score": 1}}',
        '{"score": "100%"}',
        '{"score": "1/1"}',
        '{"score": "high"}',
        '{"score": "10"}',
        '{"score": "1e0"}',
        '{"score": "\u0661"}',  # a digit, but not one of ours
        '{score: 1, why: "right"}',
        "{score: -0.1}",
        "{score: <score>}",
        '{"score": ' + "9" * 10_000 + "}",
        "[" * 15_000,
        '{"score": 1}' + " " * 30_000,
    ],
)
def test_what_is_not_one_number_from_0_to_1_is_unjudged(text: str) -> None:
    opinion = read_score(text)
    assert isinstance(opinion, Unjudged)
    assert 0 < len(opinion.reason) < 200


@given(
    st.text()
    | st.from_regex(r'\s*(```(json)?\n)?\{"?score"?: ?"?-?[0-9.eE+-]{0,8}"?\}(\n```)?', fullmatch=True)
)
def test_no_text_raises_and_no_score_is_out_of_range(text: str) -> None:
    score = read_score(text)
    assert isinstance(score, Unjudged) or (type(score) is float and 0 <= score <= 1)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_never_clipped_into_range(number: float) -> None:
    score = read_score(f'{{"score": {number!r}}}')
    if math.isfinite(number) and 0 <= number <= 1:
        assert score == number
    else:
        assert isinstance(score, Unjudged)
