"""A row may have several answers that are right: read, written, judged, rewarded, counted, kept and told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from full_record import RECORD

from opengrit.core.records import from_json, to_json
from opengrit.core.types import Example, Unjudged, Verdict
from opengrit.data import BadRows, load, write
from opengrit.data.fingerprint import Kind, compare, fingerprint
from opengrit.evaluation.metrics.controls import majority_control
from opengrit.evaluation.metrics.quantities import count_error
from opengrit.grounding.frames import frame_for
from opengrit.grounding.parsing import parse
from opengrit.judges import Case, RuleJudge, judge_cases, judge_transcript
from opengrit.rewards.answers import bleu1
from opengrit.rewards.boxes import box_count
from opengrit.rewards.protocol import Attempt

ROW = {"question": "How many birds?", "answer": 2, "image": "a.png", "width": 200, "height": 100}


def rows(path: Path, *also: object) -> Path:
    path.write_text("".join(json.dumps(ROW | {"also_accepted": one}) + "\n" for one in also))
    return path


def example(tmp_path: Path, also: object) -> Example:
    (found,) = load(rows(tmp_path / "rows.jsonl", also))
    return found


def attempt(example: Example, text: str) -> Attempt:
    transcript = parse(text, frame_for("pixels", example.picture_size))
    return Attempt(example, RECORD.completion, transcript, judge_transcript(RuleJudge(), example, transcript))


def test_a_row_names_further_answers_and_is_written_back_with_them(tmp_path: Path) -> None:
    read = example(tmp_path, ["a pair", 3, "2", "a pair"])
    assert read.accepted == ("2", "a pair", "3")  # the answer itself and what is there twice are left out
    written = write([read], tmp_path / "again.jsonl")
    assert load(written)[0].accepted == read.accepted
    assert example(tmp_path, None).also_accepted == ()


@pytest.mark.parametrize("bad", ["a pair", [["a"]], [True], [""], ["<answer>2</answer>"], {"a": 1}])
def test_what_is_no_list_of_answers_is_named(tmp_path: Path, bad: object) -> None:
    with pytest.raises(BadRows, match="also_accepted: "):
        load(rows(tmp_path / "rows.jsonl", bad))


def test_any_accepted_answer_is_right_and_another_is_wrong(tmp_path: Path) -> None:
    row = example(tmp_path, ["a pair", 3])
    judged = {said: attempt(row, f"<answer>{said}</answer>").verdict for said in ("two", "A pair.", "3", "4")}
    assert [verdict.correct for verdict in judged.values() if isinstance(verdict, Verdict)] == [
        True,
        True,
        True,
        False,
    ]


def test_an_answer_that_one_comparison_failed_on_is_not_wrong() -> None:
    """What is unlike the first answer, and could not be compared with the second, has no verdict."""

    class KnowsTwo:
        def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
            known = expected == "2"
            return Verdict(given == "2", float(given == "2")) if known else Unjudged("busy")

        def judge_many(
            self, cases: Sequence[Case], *, deadline_seconds: float | None = None
        ) -> list[Verdict | Unjudged]:
            return [self.judge(one.question, expected=one.expected, given=one.given) for one in cases]

    cases = [Case("?", expected="2", given=given, also_accepted=("a pair",)) for given in ("2", "5")]
    alone = Case("?", expected="2", given="5")
    assert judge_cases(KnowsTwo(), [*cases, alone]) == [
        Verdict(True, 1.0),
        Unjudged("busy"),
        Verdict(False, 0.0),
    ]


def test_rewards_and_metrics_take_the_accepted_answer_that_is_nearest(tmp_path: Path) -> None:
    row = example(tmp_path, [3, "a pair of birds"])
    three = (
        "<think>bird [1, 1, 9, 9], bird [11, 1, 19, 9], bird [21, 1, 29, 9]</think><answer>a pair of birds"
    )
    tried = attempt(row, three)
    assert box_count(tried) == 1.0  # three boxes, and 3 is accepted
    assert box_count(attempt(row, "<think>bird [1, 1, 9, 9]</think><answer>2")) == 0.0
    assert bleu1(tried) == 1.0
    record = replace(
        RECORD, example=row, transcript=tried.transcript, completion=replace(RECORD.completion, text=three)
    )
    stopped = replace(
        record, completion=replace(record.completion, finish=tried.transcript.finish), failure=None
    )
    assert count_error(stopped) == 0.0
    other = replace(row, id="rows:2", answer="3", also_accepted=())
    third = replace(other, id="rows:3")
    judged = [
        replace(stopped, id=one.id, example=one, verdict=Verdict(True, 1.0)) for one in (row, other, third)
    ]
    always_three = majority_control(judged)
    assert [always_three(one) for one in judged] == [1.0, 1.0, 1.0]


def test_records_keep_them_and_older_records_have_none() -> None:
    written = to_json(RECORD)
    assert written["example"]["also_accepted"] == ["a dog"]
    assert from_json(written) == RECORD
    del written["example"]["also_accepted"]
    assert from_json(written).example.also_accepted == ()


def test_another_accepted_answer_is_another_annotation(tmp_path: Path) -> None:
    one, two = (replace(RECORD.example, also_accepted=also) for also in (("a",), ("a", "b")))
    (change,) = compare(fingerprint([one]), fingerprint([two])).rows
    assert change.kind is Kind.ANSWER
    assert change.kind.is_annotation
    plain = replace(one, also_accepted=())
    assert fingerprint([plain]).rows[0].answer == "1"  # as it was before rows could have several
