"""Questions that need two looks: answers follow from the boxes, one look is not enough, and boxes stand in the order of looking."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import HELD_OUT_PAIRS, RELATIONS, holds, offset
from opengrit.data.stickers.two_looks import DIRECTIONS, KINDS_OF_LOOKS, SUPERLATIVES, only_one
from opengrit.data.stickers.world import KINDS, PLURALS

SINGULAR = {plural: kind for kind, plural in PLURALS.items()}
ROWS = [*sets.asked("compose"), *sets.asked("compose20")]


def of(looks):
    return [row for row in ROWS if row.looks == looks]


@pytest.mark.parametrize(("name", "number"), [("compose", 60), ("compose20", 5)])
def test_the_four_kinds_take_turns(name, number):
    assert Counter(row.looks for row in sets.asked(name)) == dict.fromkeys(KINDS_OF_LOOKS, number)


def test_answers_are_balanced():
    side = Counter(row.answer for row in sets.asked("compose") if row.looks == "side")
    assert side == {str(n): 12 for n in range(5)}
    compared = Counter(row.answer for row in sets.asked("compose") if row.looks == "comparison")
    assert compared == {"Yes": 30, "No": 30}
    between = Counter(row.answer for row in sets.asked("compose") if row.looks == "between")
    assert between == {str(n): 12 for n in range(5)}
    walks = Counter(row.answer for row in of("superlative"))
    assert set(walks) == set(KINDS)
    assert max(walks.values()) < 0.2 * walks.total()


def test_a_count_on_one_side_is_read_off_the_boxes_from_the_outermost_inwards():
    for row in of("side"):
        words, relation, anchor = re.fullmatch(
            rf"How many (\w+) are ({'|'.join(RELATIONS)}) the (\w+)\?", row.question
        ).groups()
        counted = row.scene.of_kind(SINGULAR[words])
        (thing,) = row.scene.of_kind(anchor)
        assert int(row.answer) == sum(holds(relation, one, thing) for one in counted)
        assert row.pointed[-1] == thing
        assert {*row.pointed[:-1]} == {one for one in counted if holds(relation, one, thing)}
        assert all(offset(relation, outer, inner) >= 0 for outer, inner in pairwise(row.pointed))


def test_a_comparison_points_at_all_of_both_kinds():
    for row in of("comparison"):
        first, second = re.fullmatch(r"Are there more (\w+) than (\w+)\?", row.question).groups()
        one, other = (row.scene.of_kind(SINGULAR[words]) for words in (first, second))
        assert row.pointed == (*one, *other)
        assert row.answer == ("Yes" if len(one) > len(other) else "No")


def test_a_walk_from_the_outermost_thing_needs_the_outermost_one():
    for row in of("superlative"):
        relation, word, kind = re.fullmatch(
            rf"What is ({'|'.join(RELATIONS)}) the (\w+) (\w+)\?", row.question
        ).groups()
        anchor, found = row.pointed
        rest = [o for o in row.scene.of_kind(kind) if o != anchor]
        assert rest
        assert all(holds(SUPERLATIVES[word], anchor, o) for o in rest)
        assert only_one(row.scene, anchor, relation) == found
        assert row.answer == found.kind
        # From another of the kind the same relation does not lead to this answer.
        assert not any((other := only_one(row.scene, o, relation)) and other.kind == row.answer for o in rest)


def test_what_is_between_stands_between_on_the_line_of_boxes():
    for row in of("between"):
        first, second, direction = re.fullmatch(
            rf"How many things are between the (\w+) and the (\w+) ({'|'.join(DIRECTIONS)})\?", row.question
        ).groups()
        axis = DIRECTIONS[direction]
        ends = [row.scene.of_kind(kind)[0] for kind in (first, second)]
        low, high = sorted(one.centre[axis] for one in ends)
        between = [o for o in row.scene.objects if low < o.centre[axis] < high]
        assert int(row.answer) == len(between) == len(row.pointed) - 2
        assert {row.pointed[0], row.pointed[-1]} == {*ends}
        places = [o.centre[axis] for o in row.pointed]
        assert places == sorted(places)


def test_no_pair_that_only_unseen_relates_is_related_here():
    for row in of("superlative"):
        assert not any(frozenset((a.kind, b.kind)) in HELD_OUT_PAIRS for a, b in pairwise(row.pointed))
    for row in of("side"):
        assert frozenset(o.kind for o in row.pointed) not in HELD_OUT_PAIRS
    for row in of("between"):
        assert frozenset(row.key_words) not in HELD_OUT_PAIRS


def test_rows_report_by_kind():
    names = Counter(example.dataset for example in sets.examples("compose"))
    assert names == {f"stickers/compose/{kind}": 60 for kind in KINDS_OF_LOOKS}
