"""The rule judge against answers written to be paid for nothing, and against right answers in other clothes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import adversary
import pytest
from adversary import Case
from fixtures_path import needs_fixtures, shared_rows

from opengrit.core.types import Verdict
from opengrit.judges import RuleJudge
from opengrit.judges.answers import is_box_answer, same_answer

N = 5_000
SEED = 2025
PIECES = (
    "2", "two", "no", "not", "yes", "or", "B", "(B)", "A", "dog", "the answer is", " ", "\n", ".", ",", "?", "!", ":", "(", ")", "[", "]", "{", "}", "-",
    "\u2013", "/", "=", "+", "^", "%", "$", "\\boxed{", "\\frac{", "\\sqrt", "\\text{", "}", "**", "`", "<answer>", "</answer>", "<box>", "[1, 2, 3, 4]", '{"bbox_2d":',
    "1,000", "1/2", "\u00bd", "\u00b2", "\u221a", "hundred", "dozen", "half", "a", "minus", "point", "and", "\u7b54\u6848\uff1a", "\u4e0d\u662f", "\uff22", "\u0301", "\u200b", "\U0001f600",
    "\ud800", "\x00", "'", '"', "none", "any", "single", "so", "because", "9" * 50, "\u0661", "\u2460", "\u2167",
)  # fmt: skip
QUESTIONS = (
    "How many dogs are there?",
    "Is the dog left of the cat?",
    "Which?\n(A) cat\n(B) dog\n(C) 2",
    "What is it?",
    "",
    None,
)
EXPECTED = ("2", "Yes", "B", "dog", "1/2", "[1, 2]", "x+1", "0", "True", "5 cm", "$5", "10:30", "")


def judged_wrongly(cases: Iterable[Case]) -> list[Case]:
    return [case for case in cases if same_answer(case.expected, case.given, case.question) != case.means_it]


def shown(cases: list[Case]) -> str:
    lines = [f"{case.family}: {case.given!r} for {case.expected!r} to {case.question!r}" for case in cases]
    return "\n".join((f"{len(cases)} cases", *lines[:60]))


def test_no_answer_that_does_not_mean_the_expected_one_is_paid() -> None:
    cases = list(adversary.false_answers(N, SEED))
    assert len(Counter(case.family for case in cases)) >= 40
    paid = judged_wrongly(cases)
    assert not paid, shown(paid)


def test_an_answer_in_other_clothes_is_paid() -> None:
    cases = list(adversary.true_answers(N, SEED))
    assert len(Counter(case.family for case in cases)) >= 40
    missed = judged_wrongly(cases)
    assert len(missed) <= 0.02 * N, shown(missed)


@needs_fixtures
def test_the_field_cases_that_are_not_arguable_hold() -> None:
    rows = shared_rows("field_cases", "answers.jsonl")
    assert len(rows) > 50
    wrong = [
        row
        for row in rows
        if "arguable" not in row["verdict"]
        and same_answer(row["input"]["expected"], row["input"]["given"], row["input"]["question"])
        != row["expected"]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "given", ["2 (one red, one blue)", "2 dogs: one brown, one white", "2. One is on the left."]
)
def test_a_count_may_be_explained_after_a_mark(given: str) -> None:
    assert same_answer("2", given)
    assert not same_answer("3", given)


def test_a_count_beside_another_is_read_by_the_noun_that_was_asked_for() -> None:
    given = "2 dogs and 1 cat"
    assert same_answer("2", given, "How many dogs are there?")
    for expected, question in (
        ("2", None),
        ("2", "How many cats are there?"),
        ("2", "How many animals are there?"),
    ):
        assert not same_answer(expected, given, question)


def test_true_is_yes_where_the_question_can_be_answered_so() -> None:
    assert same_answer("True", "yes", "Is the dog left of the cat?")
    assert same_answer("False", "No.", "Is the dog left of the cat?")
    assert not same_answer("True", "yes", "Which word is on the sign?")
    assert not same_answer("No", "no parking")


@pytest.mark.slow
def test_the_judge_answers_every_text_and_pays_no_noise() -> None:
    draw = random.Random(SEED)
    judge, paid = RuleJudge(), Counter[bool]()
    for _ in range(20_000):
        given = "".join(draw.choices(PIECES, k=draw.randrange(12)))
        expected, question = draw.choice(EXPECTED), draw.choice(QUESTIONS)
        verdict = judge.judge(question or "", expected=expected, given=given)
        assert isinstance(verdict, Verdict)
        paid[verdict.correct] += 1
        assert same_answer(given, expected, question) in (True, False) if not is_box_answer(given) else True
    assert paid[True] < 0.03 * paid[False], paid


@pytest.mark.parametrize(
    ("expected", "given", "same"),
    [
        ("x+1", "1+x", True),
        (r"2*\sqrt{3}", r"\sqrt{12}", True),
        (r"\frac{3√{5}}{2}", r"The answer is $1.5\sqrt{5}$.", True),
        ("x+1", "x-1", False),
        ("2-3", "-1", False),
        ("x+1", "1+x or 1-x", False),
        ("2^3", "9^9^9^9^9", False),
    ],
)
def test_expressions_that_are_equal_are_the_same_where_math_verify_is_installed(
    expected: str, given: str, same: bool
) -> None:
    pytest.importorskip("math_verify", reason="the extra `math` is not installed")
    assert same_answer(expected, given) == same


def test_a_long_answer_is_read_once_and_not_cut() -> None:
    padding = "The dog is on the left. " * 5_000
    assert same_answer("2", f"{padding}So the answer is 2.", "How many dogs are there?")
    assert not same_answer("2", f"2 {padding}", "How many cats are there?")
    assert not same_answer("2", "2, or maybe " * 10_000, "How many dogs are there?")
