from __future__ import annotations

import pytest
from fixtures_path import needs_fixtures, shared_rows
from hypothesis import given
from hypothesis import strategies as st

from opengrit.judges.answers import is_box_answer, normalise, same_answer

LETTERED = "Which angle?\nChoices:\n(A) 135\u00b0\n(B) 140\u00b0\n(C) 145\u00b0"
SIDES = "Is the dog left or right of the car?"
BEHIND = "What is behind the sheep?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The Dogs. ", "dog"),
        ("Twenty-one", "21"),
        ("7.0", "7"),
        ("1,000", "1000"),
        ("-3", "-3"),
        ("2-4", "2 - 4"),
        ("a", "a"),
        ("people", "person"),
        ("Grey buses", "gray bus"),
    ],
)
def test_a_text_has_one_spelling(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("Yes", "yes"),
        ("Yes", "Yes, the dog is left of the car."),
        ("No", "No."),
        ("No", "**No**"),
        ("Yes", "The answer is yes."),
        ("Yes", "I would say yes"),
        ("Yes", "Yes. No other dog is there."),
        ("Yes", "Yes, there is no gap"),
    ],
)
def test_yes_and_no_may_be_explained(expected: str, answer: str) -> None:
    assert same_answer(expected, answer, "Is the dog left of the car?")


@pytest.mark.parametrize(
    "answer", ["yes or no", "Yes/No", "Yes. No.", "yes, no", "No and yes", "maybe", "dog"]
)
@pytest.mark.parametrize("expected", ["Yes", "No"])
def test_saying_both_or_neither_is_not_an_answer(expected: str, answer: str) -> None:
    assert not same_answer(expected, answer)


def test_the_opposite_is_not_the_same() -> None:
    assert not same_answer("Yes", "No, it is right of the car.")
    assert not same_answer("No", "Yes")
    assert not same_answer("Yes", "There is no dog")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("3", "three"),
        ("three", "3"),
        ("7", "7."),
        ("7", "There are 7 zebras."),
        ("7", "7 (seven)"),
        ("7", "7, because I see 3 on the left and 4 on the right"),
        ("7", r"\boxed{7}"),
        ("21", "twenty one"),
        ("0", "none"),
        ("0", "zero"),
        ("0", "no dogs"),
        ("0", "There are no dogs in the picture."),
        ("0", "There aren't any dogs."),
        ("1.2", "1.20"),
        ("5", "2 + 3 = 5"),
        ("3", "3 [10, 20, 30, 40]"),
        ("145\u00b0", "145 degrees"),
    ],
)
def test_numbers_are_the_same_in_words_and_in_figures(expected: str, answer: str) -> None:
    assert same_answer(expected, answer, "How many are there?")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("3", "13"),
        ("3", "3.5"),
        ("3", "-3"),
        ("3", "3, 4, 5"),
        ("3", "3. 4. 5."),
        ("3", "3 or 4"),
        ("3", "2-4"),
        ("3", "more than 3"),
        ("3", "at least 3"),
        ("3", "3+"),
        ("3", "not 3"),
        ("0", "No"),
        ("2", "[1, 2, 3, 4] [2, 3, 4, 5]"),
    ],
)
def test_lists_ranges_bounds_and_denials_are_not_a_number(expected: str, answer: str) -> None:
    assert not same_answer(expected, answer, "How many are there?")


@pytest.mark.parametrize(
    "answer", ["C", "c", "(C)", "C.", "C. 145\u00b0", "C 145\u00b0", "Option C", "145", "The answer is C."]
)
def test_an_option_is_named_by_letter_or_by_text(answer: str) -> None:
    assert same_answer("145\u00b0", answer, LETTERED)


def test_the_expected_option_may_be_a_letter_too() -> None:
    assert same_answer("C", "145 degrees", LETTERED)
    assert not same_answer("C", "140 degrees", LETTERED)


@pytest.mark.parametrize("answer", ["B", "B. 145\u00b0", "A, B, C", "135, 140, 145", "B or C", "(A) (B) (C)"])
def test_another_option_a_contradiction_or_all_of_them_is_wrong(answer: str) -> None:
    assert not same_answer("145\u00b0", answer, LETTERED)


def test_an_option_may_be_yes_or_no() -> None:
    question = "Is it?\nChoices:\n(A) Yes\n(B) No"
    assert same_answer("Yes", "A", question)
    assert same_answer("Yes", "Yes, there is no gap", question)
    assert not same_answer("No", "A", question)


def test_options_that_differ_only_in_a_sign_stay_apart() -> None:
    question = "Which?\nChoices:\n(A) 60-k\n(B) 60+k"
    assert same_answer("60-k", "60 - k", question)
    assert not same_answer("60-k", "60+k", question)


def test_an_article_is_not_an_option_letter() -> None:
    assert same_answer("dog", "A dog", "Which?\n(A) cat\n(B) dog")
    assert not same_answer("cat", "A dog", "Which?\n(A) cat\n(B) dog")


@pytest.mark.parametrize(
    ("expected", "answer", "question"),
    [
        ("dog", "A dog.", None),
        ("dog", "dogs", None),
        ("cell phone", "cellphone", None),
        ("child", "Children", None),
        ("cow", "brown cow", None),
        ("cow", "The cow is behind the sheep.", BEHIND),
        ("cow", "cow, it stands behind the sheep", BEHIND),
        ("man", "The man in the blue shirt", None),
        ("left", "To the left of the car.", SIDES),
    ],
)
def test_a_text_may_be_put_into_a_sentence(expected: str, answer: str, question: str | None) -> None:
    assert same_answer(expected, answer, question)


@pytest.mark.parametrize(
    ("expected", "answer", "question"),
    [
        ("dog", "hot dog", None),
        ("hot dog", "dog", None),
        ("bear", "teddy bear", None),
        ("left", "not left", None),
        ("left", "It isn't left", None),
        ("left", "left right", SIDES),
        ("left", "left or right", SIDES),
        ("left", "left, right", SIDES),
        ("left", "left/right", SIDES),
        ("left", "left and right", SIDES),
        ("cow", "cow, sheep, dog", BEHIND),
        ("cow", "cow and dog", BEHIND),
        ("person", "cow", None),
        ("dog", "", None),
        ("dog", "...", None),
    ],
)
def test_containing_or_denying_or_listing_the_answer_is_not_giving_it(
    expected: str, answer: str, question: str | None
) -> None:
    assert not same_answer(expected, answer, question)


def test_a_box_is_not_compared_as_words() -> None:
    assert is_box_answer("[244, 25, 338, 69]")
    assert not is_box_answer("[0, 2, 0, 2, 1]")
    with pytest.raises(ValueError, match="overlap"):
        same_answer("[244, 25, 338, 69]", "[244, 25, 338, 69]")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_makes_the_comparison_raise(expected: str, answer: str, question: str) -> None:
    if not is_box_answer(expected):
        assert same_answer(expected, answer, question) in (True, False)


@needs_fixtures
@pytest.mark.parametrize("name", ["vsr_val", "tallyqa_val", "gqa_val", "mathvista_mini_val", "mme_val"])
def test_every_expected_answer_of_the_released_rows_is_the_same_as_itself(name: str) -> None:
    rows = shared_rows("grit_val", f"{name}.jsonl")
    assert rows
    unlike = [row for row in rows if not same_answer(str(row["answer"]), str(row["answer"]), row["question"])]
    assert unlike == []


@needs_fixtures
def test_no_wrong_option_of_mathvista_passes_and_every_right_letter_does() -> None:
    rows = [
        row for row in shared_rows("grit_val", "mathvista_mini_val.jsonl") if "Choices:\n" in row["question"]
    ]
    assert len(rows) == 540
    for row in rows:
        lines = row["question"].rpartition("Choices:\n")[2].splitlines()
        options = {line[1]: line[4:].strip() for line in lines}
        assert row["answer"] in options.values()
        for letter, text in options.items():
            is_right = text == row["answer"]
            assert same_answer(row["answer"], letter, row["question"]) == is_right, (row, letter)
            assert same_answer(row["answer"], f"{letter}. {text}", row["question"]) == is_right, (row, letter)
        assert not same_answer(row["answer"], ", ".join(sorted(options)), row["question"]), row


@pytest.mark.parametrize("given", ["Yes\nYes", "Yes, yes.", "Yes. Yes, it is.", "Yes\n\nYes, it is."])
def test_a_yes_said_twice_is_still_a_yes(given: str) -> None:
    assert same_answer("Yes", given)
    assert not same_answer("No", given)


@pytest.mark.parametrize("given", ["yes or no", "Yes, no", "no/yes"])
def test_yes_and_no_together_are_neither(given: str) -> None:
    assert not same_answer("Yes", given)
    assert not same_answer("No", given)


@pytest.mark.parametrize("given", [">3", "< 3", "~3", "\u22653"])
def test_a_bound_is_not_a_number(given: str) -> None:
    assert not same_answer("3", given)
