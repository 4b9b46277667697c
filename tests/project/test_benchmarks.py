"""Each benchmark's own way of answering, on the rows as they were released."""

from __future__ import annotations

from collections import Counter

import pytest
from fixtures_path import needs_fixtures, shared, shared_rows

from opengrit.core.types import Example, Unjudged
from opengrit.data import load
from opengrit.data.benchmarks import BENCHMARKS, benchmark
from opengrit.judges import RuleJudge
from opengrit.judges.answers import AnswerKind, answer_kind, is_box_answer, said_yes_or_no, same_answer

NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def rows_of(name: str) -> list[Example]:
    return load(shared("grit_val", benchmark(name).files[0].name), on_problem=lambda _: None)


def kinds(name: str) -> Counter[AnswerKind]:
    return Counter(answer_kind(e.answer, e.question) for e in rows_of(name))


def test_names_files_and_data_sets_are_each_known_once() -> None:
    assert [known.name for known in BENCHMARKS] == [
        "grit20",
        "vsr",
        "tallyqa",
        "tallyqa-relabeled",
        "gqa",
        "mathvista",
        "mme",
        "ovdeval",
        "treebench",
        "pope",
    ]
    # The corrected set keeps its file's name and has a repository of its own.
    files = [(known.repository, file.name) for known in BENCHMARKS for file in known.files]
    # The training rows and the corrected set are of data sets that stand here already.
    again = {"grit20", "tallyqa-relabeled"}
    datasets = [dataset for known in BENCHMARKS if known.name not in again for dataset in known.datasets]
    assert len(set(files)) == len(files)
    assert len(set(datasets)) == len(datasets)
    # Those of GRIT's own repositories have its rows already.
    assert {known.name for known in BENCHMARKS if known.to_grit is not None} == {"pope", "treebench"}
    assert {known.name for known in BENCHMARKS if known.repository is None} == {"pope"}


@needs_fixtures
def test_the_kinds_of_answers_are_those_that_were_counted() -> None:
    assert kinds("vsr")[AnswerKind.YES_NO] == 206
    assert kinds("tallyqa") == {AnswerKind.NUMBER: 491}
    assert kinds("mme") == {AnswerKind.YES_NO: 240}
    assert kinds("ovdeval") == {AnswerKind.BOX: 2146}
    # 540 rows list choices; the other 460 hold numbers but for two lists. "[2014, 2016]" is one of three lists, the
    # third is among the choices.
    assert kinds("mathvista")[AnswerKind.OPTION] == 540
    assert kinds("mathvista")[AnswerKind.LIST] + kinds("mathvista")[AnswerKind.NUMBER] == 460


# MathVista: the question asks for a letter, the row holds the text.


def options(example: Example) -> dict[str, str]:
    lines = example.question.rpartition("Choices:\n")[2].splitlines()
    return {line[1]: line[4:].strip() for line in lines}


@needs_fixtures
@pytest.mark.parametrize(
    "wording",
    [
        "{letter}",
        "({letter})",
        "{letter}.",
        "{letter}) {text}",
        "({letter}) {text}",
        "The answer is {letter}.",
        "The correct option is ({letter}).",
        "**{letter}**",
        "\\boxed{{{letter}}}",
        "Option {letter}",
        "{text}",
    ],
)
def test_an_option_of_mathvista_is_right_by_letter_and_by_text_and_no_other_one_is(wording: str) -> None:
    rows = [e for e in rows_of("mathvista") if "Choices:\n" in e.question]
    assert len(rows) == 540
    for row in rows:
        for letter, text in options(row).items():
            given = wording.format(letter=letter, text=text)
            assert same_answer(row.answer, given, row.question) == (text == row.answer), (row.id, given)


@needs_fixtures
def test_a_free_answer_of_mathvista_may_be_put_into_a_sentence_and_another_number_is_wrong() -> None:
    rows = [e for e in rows_of("mathvista") if answer_kind(e.answer, e.question) is AnswerKind.NUMBER]
    for row in rows:
        assert same_answer(row.answer, f"The answer is {row.answer}.", row.question), row.id
        assert same_answer(row.answer, f"{row.answer}0" if "." in row.answer else row.answer, row.question), (
            row.id
        )
        assert not same_answer(row.answer, str(float(row.answer) + 1), row.question), row.id


@needs_fixtures
def test_a_list_of_mathvista_is_right_in_its_order_only() -> None:
    lists = {
        e.answer: e for e in rows_of("mathvista") if answer_kind(e.answer, e.question) is AnswerKind.LIST
    }
    row = lists["[2014, 2016]"]
    for given in ("[2014, 2016]", "[2014,2016]", "The list is [2014, 2016].", "2014 and 2016"):
        assert same_answer(row.answer, given, row.question), given
    for given in ("[2016, 2014]", "[2014]", "[2014, 2015, 2016]", "2014", "[2014, 2015]"):
        assert not same_answer(row.answer, given, row.question), given


# TallyQA: whole numbers.


@needs_fixtures
def test_a_count_is_right_in_figures_in_words_and_in_a_sentence() -> None:
    for row in rows_of("tallyqa"):
        count = row.count
        assert count is not None
        assert 0 <= count <= 9
        for given in (
            str(count),
            NUMBER_WORDS[count],
            f"There are {count} of them.",
            f"{count}.",
            f"{count}.0",
        ):
            assert same_answer(row.answer, given, row.question), (row.id, given)
        for given in (
            str(count + 1),
            NUMBER_WORDS[(count + 1) % 10],
            f"{count} or {count + 1}",
            f"more than {count}",
            "",
        ):
            assert not same_answer(row.answer, given, row.question), (row.id, given)


# MME and POPE: yes or no.


@needs_fixtures
def test_mme_takes_a_yes_or_a_no_and_nothing_between() -> None:
    opposite = {"Yes": "No", "No": "Yes"}
    for row in rows_of("mme"):
        for given in (
            row.answer,
            row.answer.lower(),
            f"{row.answer}.",
            f"{row.answer}, it is so.",
            f"**{row.answer}**",
        ):
            assert same_answer(row.answer, given, row.question), (row.id, given)
        for given in (opposite[row.answer], "Yes or no", "I cannot tell", ""):
            assert not same_answer(row.answer, given, row.question), (row.id, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Yes", "yes"),
        ("yes, there is a dog.", "yes"),
        ("No.", "no"),
        ("No, there is no dog in the image.", "no"),
        ("The answer is no", "no"),
        ("Yes and no", None),
        ("There is a dog.", None),
        ("", None),
        ("  ...", None),
        ("[10, 20, 30, 40]", None),
    ],
)
def test_what_was_said_is_yes_no_or_neither(given: str, said: str | None) -> None:
    assert said_yes_or_no(given) == said


# OVDEval: a list of four whole numbers is a box.


@needs_fixtures
def test_a_box_in_a_row_is_read_as_a_box_and_no_judge_of_words_is_asked() -> None:
    raw = shared_rows("grit_val", "ovd_position_val.jsonl")
    for row, example in zip(raw, rows_of("ovdeval"), strict=True):
        assert is_box_answer(example.answer)
        assert (
            [int(text) for text in example.answer.strip("[]").split(",")] == row["answer"] == row["bboxs"][0]
        )
    judged = RuleJudge().judge(example.question, expected=example.answer, given=example.answer)
    assert isinstance(judged, Unjudged)
