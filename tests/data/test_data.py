"""GRIT's JSONL: what loads, what is reported, and what training and test must not share."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fixtures_path import needs_fixtures, shared
from PIL import Image

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError
from opengrit.core.types import Example
from opengrit.data import BadRows, Problem, Severity, load, load_examples, read, write
from opengrit.data.check import Check, LeakKind, Source, check

ROW: dict[str, Any] = {
    "question": "How many dogs are there?",
    "answer": 2,
    "image": "a.png",
    "width": 100,
    "height": 50,
    "bboxs": [[10, 5, 30, 25], [50.5, 0, 100, 50]],
    "dataset": "tallyqa",
    "split": "train",
    "key_words": "dog",
}


def jsonl(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8"
    )
    return path


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key not in names}


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def problems_of(tmp_path: Path, *rows: dict[str, Any] | str) -> tuple[Problem, ...]:
    return read(jsonl(tmp_path / "rows.jsonl", *rows)).problems


def one(file: Path, **images: Path) -> Check:
    return check([Source(file, **images)])


# What loads.


def test_a_row_becomes_an_example_with_boxes_in_the_unit_square(tmp_path: Path) -> None:
    (example,) = load(jsonl(tmp_path / "mine.jsonl", ROW))
    assert example == Example(
        id="mine:1",
        question="How many dogs are there?",
        answer="2",
        image=str(tmp_path / "a.png"),
        dataset="tallyqa",
        picture_size=Size(100, 50),
        boxes=(Box(0.1, 0.1, 0.3, 0.5), Box(0.505, 0.0, 1.0, 1.0)),
        boxes_known=True,
        key_words=("dog",),
        split="train",
    )


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("Yes", "Yes"),
        (3, "3"),
        (0, "0"),
        (3.0, "3"),
        (1.5, "1.5"),
        ([244, 25, 338, 69], "[244, 25, 338, 69]"),
    ],
)
def test_an_answer_may_be_text_a_number_or_a_box(tmp_path: Path, written: object, read_as: str) -> None:
    (example,) = load(jsonl(tmp_path / "a.jsonl", ROW | {"answer": written}))
    assert example.answer == read_as


def test_no_boxes_field_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    absent, empty = load(jsonl(tmp_path / "a.jsonl", without("bboxs"), ROW | {"bboxs": []}))
    assert (absent.boxes, absent.boxes_known) == ((), False)
    assert (empty.boxes, empty.boxes_known) == ((), True)


def test_key_words_may_be_a_list_and_other_fields_are_left_alone(tmp_path: Path) -> None:
    (example,) = load(
        jsonl(tmp_path / "a.jsonl", ROW | {"key_words": ["cup", "dog"], "license": "CC BY 2.0"})
    )
    assert example.key_words == ("cup", "dog")


def test_a_row_of_ones_own_needs_three_fields_and_takes_its_size_from_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png", size=(64, 48))
    row = {"question": "What is this?", "answer": "cat", "image": "a.png"}
    (example,) = load(jsonl(tmp_path / "mine.jsonl", row), images=tmp_path / "photos")
    assert (example.picture_size, example.dataset) == (Size(64, 48), "mine")


def test_line_separators_of_unicode_within_a_string_do_not_end_a_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        json.dumps(ROW | {"question": "one\u2028two\x85three"}, ensure_ascii=False) + "\r\n",
        encoding="utf-8",
        newline="",
    )
    (example,) = load(file)
    assert example.question == "one\u2028two\x85three"


def test_a_last_line_without_newline_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW), encoding="utf-8")
    assert len(load(tmp_path / "a.jsonl")) == 1


# Boxes at the edge of the picture.


def test_one_pixel_of_overhang_is_custom_and_clipped_without_a_word(tmp_path: Path) -> None:
    reading = read(jsonl(tmp_path / "a.jsonl", ROW | {"bboxs": [[-1, 0, 101, 51]]}))
    assert reading.problems == ()
    assert reading.examples[0].boxes == (Box(0, 0, 1, 1),)


def test_a_small_overhang_is_clipped_and_reported(tmp_path: Path) -> None:
    # The picture is 100 wide, so 5 pixels are the largest overhang across.
    file = jsonl(tmp_path / "a.jsonl", ROW | {"bboxs": [[50, 0, 105, 25]]})
    seen: list[Problem] = []
    (example,) = load(file, on_problem=seen.append)
    assert example.boxes == (Box(0.5, 0, 1, 0.5),)
    assert [(p.line, p.field, p.severity) for p in seen] == [(1, "bboxs[0]", Severity.WARNING)]
    assert "leaves it by 5 pixels and is clipped" in seen[0].message


def test_a_clipped_box_is_logged_where_nobody_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(jsonl(tmp_path / "a.jsonl", ROW | {"bboxs": [[50, 0, 105, 25]]}))
    assert "is clipped" in caplog.text


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([50, 0, 106, 25], "leaves it by 6 pixels"),
        ([0, 0, 1000, 1000], "leaves it by 950 pixels"),
        ([200, 10, 220, 30], "lies outside"),
        ([-20, 10, -5, 30], "lies outside"),
        ([30, 5, 10, 25], "left < right"),
        ([10, 5, 10, 25], "left < right"),
        ([10, 5, 30], "four numbers"),
        ([10, 5, 30, 25, 1, 2], "four numbers"),
        ("10,5,30,25", "four numbers"),
        ([10, 5, 30, "25"], "four finite numbers"),
        ([10, 5, 30, True], "four finite numbers"),
        ([10, 5, 30, float("nan")], "four finite numbers"),
        ([10, 5, float("inf"), 25], "four finite numbers"),
        ([10, 5, 30, 10**400], "four finite numbers"),
        ([0.1, 0.1, 0.3, 0.5], "fractions"),
    ],
)
def test_what_cannot_be_a_box_is_an_error(tmp_path: Path, box: object, said: str) -> None:
    (problem,) = problems_of(tmp_path, ROW | {"bboxs": [box]})
    assert (problem.line, problem.field, problem.severity) == (1, "bboxs[0]", Severity.ERROR)
    assert said in problem.message


# Rows that are wrong.


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"answer": True}, "answer", "true or false"),
        ({"answer": None}, "answer", "null"),
        ({"answer": {"a": 1}}, "answer", "an object"),
        ({"answer": ["cat", "dog"]}, "answer", "holds numbers"),
        ({"answer": []}, "answer", "holds numbers"),
        ({"answer": " "}, "answer", "non-empty"),
        ({"answer": float("nan")}, "answer", "finite"),
        ({"question": ""}, "question", "an empty string"),
        ({"question": 3}, "question", "a number"),
        ({"question": "half \ud83d"}, "question", "surrogate"),
        ({"image": "../a.png"}, "image", '".."'),
        ({"image": "/a.png"}, "image", "absolute path"),
        ({"image": None}, "image", "null"),
        ({"width": 0}, "width", "from 1 to"),
        ({"width": 10.5}, "width", "from 1 to"),
        ({"height": "50"}, "height", "from 1 to"),
        ({"bboxs": None}, "bboxs", "list of boxes"),
        ({"dataset": 1}, "dataset", "must be a non-empty string"),
        ({"split": []}, "split", "must be a non-empty string"),
        ({"key_words": [1]}, "key_words", "list of strings"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_line(
    tmp_path: Path, changes: dict[str, Any], field: str, said: str
) -> None:
    (problem,) = problems_of(tmp_path, ROW, ROW | changes)
    assert (problem.line, problem.field) == (2, field)
    assert said in problem.message
    assert str(problem).startswith(f"{tmp_path / 'rows.jsonl'}:2: {field}: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "a"', "not JSON"),
        ("[1, 2]", "a list"),
        ("3", "a number"),
        ("null", "null"),
        ("[" * 100_000, "cannot be read"),
        ('{"width": ' + "9" * 5000 + "}", "cannot be read"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    (problem,) = problems_of(tmp_path, ROW, line)
    assert problem.line == 2
    assert said in problem.message


def test_a_key_that_stands_twice_is_refused_rather_than_overwritten(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, json.dumps(ROW)[:-1] + ', "answer": 5}')
    assert problem.field == "answer"
    assert "twice" in problem.message


def test_broken_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(ROW).encode() + b'\n{"question": "\xff"}\n')
    (problem,) = read(file).problems
    assert "UTF-8" in problem.message


def test_a_missing_field_suggests_the_one_that_was_meant(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, without("question") | {"Question": "Who?"})
    assert (problem.field, problem.message) == (
        "question",
        'every row needs this field, this one does not have it; rename "Question"',
    )


def test_a_misspelt_optional_field_is_a_warning_because_its_boxes_would_be_lost(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, without("bboxs") | {"bboxes": []})
    assert (problem.field, problem.severity) == ("bboxes", Severity.WARNING)
    assert 'rename it "bboxs"' in problem.message


def test_every_bad_row_is_reported_at_once_and_nothing_is_loaded(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl", ROW | {"answer": None, "width": -1}, ROW, "{", ROW | {"bboxs": [[1, 1, 0, 0]]}
    )
    with pytest.raises(BadRows) as caught:
        load(file)
    assert [(p.line, p.field) for p in caught.value.problems] == [
        (1, "answer"),
        (1, "width"),
        (3, ""),
        (4, "bboxs[0]"),
    ]
    message = str(caught.value)
    assert "3 rows do not" in message
    assert all(str(p) in message for p in caught.value.problems)
    assert isinstance(caught.value, DataError)


def test_a_very_long_list_of_problems_says_how_to_see_the_rest(tmp_path: Path) -> None:
    with pytest.raises(BadRows) as caught:
        load(jsonl(tmp_path / "a.jsonl", *(ROW | {"width": -i} for i in range(60))))
    assert len(caught.value.problems) == 60
    assert "and 10 more" in str(caught.value)


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_is_missing_or_empty_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"readable|at least one row"):
        load(file)


def test_a_folder_is_no_file_and_a_file_no_image_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)
    file = jsonl(tmp_path / "a.jsonl", ROW)
    with pytest.raises(DataError, match="images must be an existing folder"):
        load(file, images=file)


# Writing.


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    rows = (
        ROW,
        without("bboxs", "split", "key_words") | {"answer": "007"},
        ROW | {"key_words": ["a", "b"], "bboxs": []},
    )
    examples = load(jsonl(tmp_path / "one.jsonl", *rows))
    (tmp_path / "sub").mkdir()
    again = load(write(examples, tmp_path / "sub" / "one.jsonl", images=tmp_path), images=tmp_path)
    assert again == examples
    first = json.loads((tmp_path / "sub" / "one.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == ROW


def test_writing_never_overwrites_and_never_names_a_picture_outside(tmp_path: Path) -> None:
    examples = load(jsonl(tmp_path / "one.jsonl", ROW))
    with pytest.raises(DataError, match="never overwritten"):
        write(examples, tmp_path / "one.jsonl")
    with pytest.raises(DataError, match="must be inside"):
        write(examples, tmp_path / "elsewhere" / "two.jsonl")
    assert not (tmp_path / "elsewhere").exists()


# Specs.


def test_a_spec_is_a_file_with_pictures_that_are_there(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", ROW)
    with pytest.raises(DataError, match=r"1 of 1 .* do not: .*a\.png \(looked for in .*\); give the folder"):
        load_examples(str(file))
    picture(tmp_path / "a.png")
    assert [e.id for e in load_examples(file)] == ["a:1"]


def test_a_spec_may_name_a_packaged_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENGRIT_CACHE", str(tmp_path))
    examples = load_examples("stickers/train20")
    assert len(examples) == 20
    assert all(Path(e.image).is_file() for e in examples)
    with pytest.raises(DataError, match="has its own pictures"):
        load_examples("stickers/train20", images=tmp_path)


@pytest.mark.parametrize("spec", ["stickers", "sticker/train20", "nothing.jsonl", "train20"])
def test_a_spec_that_names_nothing_is_an_error(spec: str) -> None:
    with pytest.raises(DataError, match="check the"):
        load_examples(spec)


# Checking.


def test_counts_tell_boxes_answers_and_pictures_of_each_data_set(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        ROW,
        ROW | {"question": "And cats?", "answer": 0, "bboxs": []},
        ROW | {"image": "b.png", "answer": "Yes", "dataset": "vsr"},
        without("bboxs") | {"image": "b.png", "question": "Is it?", "answer": " yes", "dataset": "vsr"},
    )
    (found,) = one(file).files
    assert (found.rows, found.unique_images, found.pictures_looked_for) == (4, 2, False)
    tally, vsr = found.datasets
    assert (tally.dataset, tally.rows, tally.images, tally.boxes) == ("tallyqa", 2, 1, 2)
    assert (tally.rows_with_boxes, tally.rows_with_no_box, tally.rows_without_boxes_field) == (1, 1, 0)
    assert (vsr.rows_with_boxes, vsr.rows_with_no_box, vsr.rows_without_boxes_field) == (1, 0, 1)
    assert (tally.answers, vsr.answers) == ((("0", 1), ("2", 1)), (("yes", 2),))


def test_missing_unreadable_and_wrongly_sized_pictures_are_told_apart(tmp_path: Path) -> None:
    picture(tmp_path / "right.png", size=(100, 50))
    picture(tmp_path / "half.png", size=(50, 25))
    picture(tmp_path / "turned.png", size=(50, 100))
    (tmp_path / "text.png").write_text("not a picture", encoding="utf-8")
    names = ("right", "half", "turned", "text", "gone")
    file = jsonl(tmp_path / "a.jsonl", *(ROW | {"image": f"{name}.png"} for name in names))
    found = one(file, images=tmp_path)
    (result,) = found.files
    assert result.missing_images == (str(tmp_path / "gone.png"),)
    assert len(result.unreadable_images) == 1
    assert "text.png" in result.unreadable_images[0]
    assert [(m.id, m.in_file, m.harmless) for m in result.size_mismatches] == [
        ("a:2", Size(50, 25), True),
        ("a:3", Size(50, 100), False),
    ]
    assert found.unusable
    assert found.doubtful


def test_a_clean_file_is_neither_unusable_nor_doubtful(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    found = one(jsonl(tmp_path / "a.jsonl", ROW), images=tmp_path)
    assert not found.unusable
    assert not found.doubtful


def test_a_pair_that_stands_twice_is_a_duplicate_however_it_is_spaced(tmp_path: Path) -> None:
    rows = (ROW, ROW | {"question": "how many  DOGS are there?"}, ROW | {"question": "Other?"})
    assert one(jsonl(tmp_path / "a.jsonl", *rows)).files[0].duplicates == (("a:1", "a:2"),)


def test_a_renamed_copy_of_a_training_picture_is_a_leak_and_a_namesake_is_not(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "1.png", "red")
    picture(tmp_path / "test" / "copy.png", "red")
    picture(tmp_path / "test" / "1.png", "blue")
    train = jsonl(tmp_path / "train.jsonl", ROW | {"image": "1.png", "question": "A?"})
    test = jsonl(
        tmp_path / "test.jsonl",
        ROW | {"image": "copy.png", "question": "B?"},
        ROW | {"image": "1.png", "question": "C?"},
    )
    found = check([Source(train, tmp_path / "train")], [Source(test, tmp_path / "test")])
    assert [(leak.kind, leak.train_id, leak.test_id) for leak in found.leaks] == [
        (LeakKind.PICTURE, "train:1", "test:1")
    ]
    assert found.doubtful


def test_without_pictures_name_and_size_decide(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", ROW | {"image": "VG_100K/7.jpg", "question": "A?"})
    test = jsonl(
        tmp_path / "test.jsonl",
        ROW | {"image": "images/7.jpg", "question": "B?"},
        ROW | {"image": "images/7.jpg", "question": "C?", "width": 101},
    )
    (leak,) = check([Source(train)], [Source(test)]).leaks
    assert (leak.kind, leak.test_id) == (LeakKind.PICTURE, "test:1")


def test_the_gravest_kind_is_named_and_a_shared_question_alone_is_no_failure(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", ROW, ROW | {"question": "Is it?", "image": "b.png"})
    test = jsonl(tmp_path / "test.jsonl", ROW | {"question": "IS it?", "image": "c.png"}, ROW)
    found = check([Source(train)], [Source(test)])
    assert [(leak.kind, leak.test_id) for leak in found.leaks] == [
        (LeakKind.PAIR, "test:2"),
        (LeakKind.QUESTION, "test:1"),
    ]
    alone = check([Source(train)], [Source(jsonl(tmp_path / "c.jsonl", ROW | {"image": "c.png"}))])
    assert [leak.kind for leak in alone.leaks] == [LeakKind.QUESTION]
    assert not alone.doubtful


def test_within_one_file_the_split_says_what_is_training(tmp_path: Path) -> None:
    rows = (ROW, ROW | {"split": "val"}, without("split"))
    found = one(jsonl(tmp_path / "a.jsonl", *rows))
    assert (found.train_rows, found.test_rows) == (1, 1)
    assert [(leak.kind, leak.train_id, leak.test_id) for leak in found.leaks] == [
        (LeakKind.PAIR, "a:1", "a:2")
    ]


# GRIT's own files. The counts are those of table 2 and of the released files.


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "rows", "images", "no_box"),
    [
        ("vsr_val", 288, 247, 0),
        ("tallyqa_val", 491, 465, 50),
        ("gqa_val", 509, 501, 0),
        ("mathvista_mini_val", 1000, 1000, 0),
        ("mme_val", 240, 240, 0),
        ("ovd_position_val", 2146, 2107, 0),
    ],
)
def test_the_six_released_files_load_and_only_the_one_bad_box_is_reported(
    name: str, rows: int, images: int, no_box: int
) -> None:
    file = shared("grit_val", f"{name}.jsonl")
    seen: list[Problem] = []
    assert len(load(file, on_problem=seen.append)) == rows
    (result,) = one(file).files
    assert (result.rows, result.unique_images) == (rows, images)
    assert sum(d.rows_with_no_box for d in result.datasets) == no_box
    reported = [(p.line, p.field) for p in result.problems]
    assert reported == [(p.line, p.field) for p in seen]
    # Line 387 has [347, 450, 485, 505] in a picture 500 high.
    assert reported == ([(387, "bboxs[0]")] if name == "gqa_val" else [])


@needs_fixtures
def test_every_picture_is_missing_where_the_folder_has_none(tmp_path: Path) -> None:
    (result,) = one(shared("grit_val", "vsr_val.jsonl"), images=tmp_path).files
    assert len(result.missing_images) == 247


@needs_fixtures
def test_the_known_overlap_of_the_training_rows_with_vsr_val_is_found() -> None:
    found = check([Source(shared("grit_vsr_train_10.jsonl"))], [Source(shared("grit_val", "vsr_val.jsonl"))])
    assert [leak.shared for leak in found.leaks if leak.kind is LeakKind.PICTURE] == ["000000076970.jpg"]
    assert sum(leak.kind is LeakKind.QUESTION for leak in found.leaks) == 3


@needs_fixtures
def test_real_photos_are_all_there_and_of_the_size_their_rows_say() -> None:
    folder = shared("real_photos", "images")
    found = check(
        [Source(shared("real_photos", f"{name}.jsonl"), folder) for name in ("counting", "spatial")]
    )
    assert [file.rows for file in found.files] == [69, 38]
    assert not found.unusable
    assert [file.size_mismatches for file in found.files] == [(), ()]
