"""A fingerprint names every change of a row: each kind alone, many together, and in a large set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from work import bytecodes, grows_linearly

from opengrit.core.boxes import Box, Size
from opengrit.core.types import Example
from opengrit.data import fingerprint as module
from opengrit.data.fingerprint import Kind, compare, content_of, fingerprint, sha256_of

BOX = Box(0.1, 0.1, 0.5, 0.5)
Rows = list[Example]
Contents = dict[str, str]


def row(number: int, **changes: object) -> Example:
    made = Example(
        f"mine:{number}", f"How many dogs are in {number}?", str(number), f"p/{number}.png", "pets", Size(100, 80), (BOX,)
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def rows(count: int = 6) -> Rows:
    return [row(number) for number in range(1, count + 1)]


def numbered(found: Rows) -> Rows:
    """The ids that loading gives: they count the lines."""
    return [replace(one, id=f"mine:{number}") for number, one in enumerate(found, start=1)]


def taken(found: Rows, contents: Contents | None = None) -> module.Fingerprint:
    known = contents or {}
    return fingerprint(found, picture_of=lambda path: known.get(path, f"content of {path}"))


def at(place: int, **changes: object) -> Callable[[Rows], Rows]:
    return lambda found: [
        replace(one, **changes) if i == place else one  # type: ignore[arg-type]
        for i, one in enumerate(found)
    ]


CHANGES: dict[str, tuple[Callable[[Rows], Rows], Kind, str]] = {
    "insert first": (lambda r: [row(9), *r], Kind.INSERTED, r"row 1 (mine:1): inserted"),
    "insert": (lambda r: [*r[:2], row(9), *r[2:]], Kind.INSERTED, "row 3 (mine:3): inserted"),
    "insert last": (lambda r: [*r, row(9)], Kind.INSERTED, "row 7 (mine:7): inserted"),
    "insert again": (lambda r: [*r, r[0]], Kind.INSERTED, "row 7 (mine:7): inserted"),
    "delete first": (lambda r: r[1:], Kind.DELETED, "row 1 then (mine:1): deleted"),
    "delete": (lambda r: [*r[:2], *r[3:]], Kind.DELETED, "row 3 then (mine:3): deleted"),
    "delete last": (lambda r: r[:-1], Kind.DELETED, "row 6 then (mine:6): deleted"),
    "reorder": (
        lambda r: [*r[1:], r[0]],
        Kind.MOVED,
        "row 6 (mine:6): was row 1 (mine:1)",
    ),
    "question": (at(2, question="Cats?"), Kind.QUESTION, "row 3 (mine:3): question changed"),
    "answer": (at(2, answer="4"), Kind.ANSWER, "row 3 (mine:3): answer changed, '3' then, '4' now"),
    "a long answer": (at(2, answer="4" * 99), Kind.ANSWER, "'3' then, '444"),
    "box": (at(2, boxes=(Box(0.1, 0.1, 0.5, 0.6),)), Kind.BOXES, "row 3 (mine:3): boxes changed"),
    "box more": (at(2, boxes=(BOX, BOX)), Kind.BOXES, "boxes changed, 1 then, 2 now"),
    "no box": (at(2, boxes=()), Kind.BOXES, "boxes changed, 1 then, 0 now"),
    "no field": (at(2, boxes_known=False), Kind.LABELS, "the field bboxs changed"),
    "dataset": (at(2, dataset="cars"), Kind.LABELS, "row 3 (mine:3): dataset"),
    "key words": (at(2, key_words=("dog",)), Kind.LABELS, "row 3 (mine:3): dataset"),
    "split": (at(2, split="test"), Kind.LABELS, "row 3 (mine:3): dataset"),
    "size": (at(2, picture_size=Size(80, 100)), Kind.LABELS, "row 3 (mine:3): dataset"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_of_a_row_is_named_alone(name: str) -> None:
    change, kind, text = CHANGES[name]
    before = rows()
    found = compare(taken(before), taken(numbered(change(before))))
    assert [one.kind for one in found.rows] == [kind]
    assert text in found.phrases()[0]
    assert found.only_annotation == kind.is_annotation
    assert found.important.rows


def test_the_same_rows_have_not_changed() -> None:
    assert taken(rows()) == taken(rows())
    assert not compare(taken(rows()), taken(rows()))


def test_an_exchanged_picture_is_told_from_a_renamed_one() -> None:
    before = taken(rows())
    exchanged = compare(before, taken(rows(), {"p/3.png": "other"}))
    assert exchanged.phrases() == ["row 3 (mine:3): picture exchanged p/3.png"]
    renamed = compare(before, taken(at(2, image="q/3.png")(rows()), {"q/3.png": "content of p/3.png"}))
    assert renamed.phrases() == ["row 3 (mine:3): picture was p/3.png, and is q/3.png with the same content"]
    assert not renamed.important
    other = compare(before, taken(at(2, image="q/3.png")(rows())))
    assert other.phrases() == ["row 3 (mine:3): picture changed from p/3.png to q/3.png"]


def test_pictures_that_change_places_under_one_question_have_not_moved() -> None:
    before = [row(number, question="How many?") for number in (1, 2, 3)]
    swapped = {"p/1.png": "content of p/2.png", "p/2.png": "content of p/1.png"}
    found = compare(taken(before), taken(before, swapped))
    assert [(one.kind, one.place) for one in found.rows] == [(Kind.PICTURE, 0), (Kind.PICTURE, 1)]


def test_a_file_under_another_name_is_named() -> None:
    found = compare(taken(rows()), taken([replace(one, id=f"other:{i}") for i, one in enumerate(rows())]))
    assert {one.kind for one in found.rows} == {Kind.NAME}
    assert found.phrases()[0] == "row 1: its id was mine:1, and is other:0"
    assert not found.only_annotation


def test_of_many_changes_the_first_are_named_and_all_are_counted() -> None:
    after = [replace(one, answer="no") for one in rows(9)]
    phrases = compare(taken(rows(9)), taken([*after, row(10)])).phrases()
    assert len(phrases) == 6
    assert phrases[4].startswith("row 5 (mine:5): answer changed")
    assert phrases[5] == "in all 9 with another answer, 1 inserted"


def test_any_number_of_changes_at_random_places_is_counted_right() -> None:
    generator = random.Random(15)
    for _ in range(60):
        before = rows(generator.randint(4, 40))
        places = generator.sample(range(len(before)), k=len(before))
        edited, deleted = set(places[:1]), set(places[1 : generator.randint(1, 3)])
        after = [
            replace(one, answer="other") if i in edited else one
            for i, one in enumerate(before)
            if i not in deleted
        ]
        inserted = generator.randint(0, 3)
        for number in range(inserted):
            after.insert(generator.randint(0, len(after)), row(100 + number))
        counts = Counter(one.kind for one in compare(taken(before), taken(numbered(after))).rows)
        expected = Counter({Kind.ANSWER: 1, Kind.DELETED: len(deleted), Kind.INSERTED: inserted})
        assert counts == +expected, (before, after)


def test_no_two_sets_of_texts_have_one_digest() -> None:
    one, other = row(1, answer="1\n", question="2"), row(1, answer="1", question="\n2")
    assert taken([one]).digests != taken([other]).digests
    ab, ba = row(1, key_words=("a", "b")), row(1, key_words=("a, b",))
    assert taken([ab]).digests.annotation != taken([ba]).digests.annotation


def test_a_picture_is_read_once_however_many_rows_ask_about_it(tmp_path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"picture")
    read = Counter[str]()

    def counted(name: str) -> str | None:
        read[name] += 1
        return content_of(name)

    found = fingerprint([row(i, image=str(path)) for i in range(50)], picture_of=counted)
    assert read == {str(path): 1}
    assert found.rows[0].picture == (sha256_of(path) or "")[:16]
    assert content_of(str(tmp_path / "none.png")) is None
    assert content_of("half\0name") is None
    assert fingerprint([row(1, image="none.png")]).rows[0].picture == ""


def test_a_picture_that_was_exchanged_is_read_again(tmp_path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"first")
    first = content_of(str(path))
    path.write_bytes(b"other content")
    assert content_of(str(path)) == sha256_of(path) != first


def test_comparing_takes_work_that_grows_with_the_rows_and_not_with_their_square() -> None:
    def edited(count: int) -> int:
        before = rows(count)
        after = [replace(one, question="other", image="none", answer="", boxes=()) for one in before]
        then, now = taken(before), taken(after)
        return bytecodes(lambda: compare(then, now))

    def shuffled(count: int) -> int:
        before = rows(count)
        then, now = taken(before), taken(random.Random(1).sample(before, k=count))
        return bytecodes(lambda: compare(then, now))

    assert grows_linearly(edited, 60)
    assert grows_linearly(shuffled, 60)
