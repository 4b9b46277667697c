"""Which rows are good, how they are balanced, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opengrit.annotation.balance import Kind, balance
from opengrit.annotation.row_file import StoredRow
from opengrit.annotation.row_file import _line as line_of


def row(number: int, question: str = "How many birds are there?", answer: Any = 2, **more: Any) -> StoredRow:
    values = {
        "question": question,
        "answer": answer,
        "image": f"{number}.jpg",
        "width": 100,
        "height": 80,
        **more,
    }
    return StoredRow(number, line_of(values), values)


def looked_at(*rows: StoredRow):
    pictures = {f"{number}.jpg" for number in range(100)}
    return balance(rows, file=Path("mine.jsonl"), folder=Path(), pictures=pictures)


def problems(*rows: StoredRow) -> list[str | None]:
    return [one.problem for one in looked_at(*rows).rows]


BOXES = [[0, 0, 10, 10], [20, 20, 40, 40]]


def test_a_good_row_has_a_short_answer_its_boxes_and_no_double():
    assert (
        problems(row(1), row(2, bboxs=BOXES), row(3, "Is it red?", "Yes"), row(4, "What is it?", "a dog"))
        == [None] * 4
    )
    [problem] = problems(row(1, bboxs=BOXES[:1]))
    assert problem == "1 box and the answer 2: draw one for each, or none"
    [problem] = problems(row(1, "What is it?", "It is a very large dog on a chair."))
    assert problem is not None
    assert "a sentence" in problem
    assert problems(row(1), row(1, "how many  birds are there?", 3)) == [
        None, "the same is asked about this picture in another row",
    ]  # fmt: skip
    assert problems(row(1, image="gone.jpg")) == ["its picture gone.jpg is not in the folder"]
    [problem] = problems(row(1, bboxs=[[0, 0, 900, 10]]))
    assert problem is not None


def test_kinds_and_answers_are_counted():
    found = looked_at(
        row(1),
        row(2),
        row(3, "Is it red?", "Yes"),
        row(4, "Is it a dog?", "no"),
        row(5, "What is it?", "a dog"),
    )
    assert found.kinds == {"count": 2, "yes/no": 2, "open": 1}
    assert [one.kind for one in found.rows] == [Kind.COUNT, Kind.COUNT, Kind.YES_NO, Kind.YES_NO, Kind.OPEN]
    assert found.answers[0] == ("2", 2)
    assert not found.advice


def test_one_answer_to_most_rows_is_advised_against():
    same = [row(n, "Is it red?", "Yes") for n in range(6)]
    [advice] = looked_at(*same, *[row(10 + n, answer=n) for n in range(3)]).advice
    assert "6 of 9 rows have the answer 'yes'" in advice
    [advice] = looked_at(*same, *[row(10 + n, answer=n) for n in range(9)]).advice
    assert "6 of 6 yes/no rows have the answer 'yes'" in advice
    assert not looked_at(*same[:5]).advice


def test_only_good_rows_count():
    rows = [row(n, answer=n % 5) for n in range(19)]
    bad = row(50, bboxs=BOXES[:1])
    assert looked_at(*rows, bad).num_good == 19
    assert looked_at(*rows, bad, row(51)).num_good == 20
