"""Sticker world: seeded, balanced, exact, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
from PIL import Image

from opengrit.core.errors import DataError
from opengrit.data.stickers import sets, world
from opengrit.data.stickers.questions import HELD_OUT_PAIRS, MARGIN, holds


def test_counting_answers_are_balanced_from_zero_to_five():
    assert Counter(a.answer for a in sets.asked("count")) == {str(n): 40 for n in range(6)}


def test_the_twenty_training_rows_are_grits_mix():
    rows = sets.asked("train20")
    assert sorted(a.answer for a in rows[:10]) == sorted("0011223344")
    assert sum(a.answer in ("Yes", "No") for a in rows[10:]) == 5
    assert sum(a.question.startswith("What is ") for a in rows[10:]) == 5


def test_a_counted_object_is_pointed_at_once_each():
    for asked in sets.asked("count"):
        assert int(asked.answer) == len(asked.pointed) == len({(o.left, o.top) for o in asked.pointed})


def test_spatial_answers_follow_from_the_boxes_with_a_margin():
    for asked in sets.asked("spatial"):
        if asked.answer not in ("Yes", "No"):
            continue
        a, b = asked.pointed
        relation = next(r for r in ("left of", "right of", "above", "below") if r in asked.question)
        assert holds(relation, a, b) == (asked.answer == "Yes")
        (ax, ay), (bx, by) = a.centre, b.centre
        distance = abs(ax - bx) if relation in ("left of", "right of") else abs(ay - by)
        assert distance >= MARGIN


def test_boxes_are_tight_around_what_is_drawn():
    scene = sets.asked("spatial")[0].scene
    for placed in scene.objects:
        alone = world.Scene(scene.size, (placed,), ((0, 0, 0), (0, 0, 0), 0))
        # A pixel whose alpha is at most OPAQUE is drawn but does not belong to the object.
        drawn = world.draw(alone).getbbox()
        assert drawn == pytest.approx((placed.left, placed.top, placed.right, placed.bottom), abs=1)


def test_unseen_asks_about_held_out_pairs_in_the_unseen_style_only():
    for asked in sets.asked("unseen"):
        assert {o.style for o in asked.scene.objects} == {world.UNSEEN_STYLE}
        if not asked.answer.isdigit():
            assert frozenset(asked.key_words) in HELD_OUT_PAIRS
    for name in ("train20", "spatial"):
        pairs = {frozenset(a.key_words) for a in sets.asked(name) if not a.answer.isdigit()}
        assert not pairs & HELD_OUT_PAIRS


def test_no_scene_stands_in_two_sets():
    prints = Counter(a.scene.fingerprint() for name in sets.SET_NAMES for a in sets.asked(name))
    assert max(prints.values()) == 1


PINNED = {
    "compose": "4b185f4c649fe733cd8af491a5e2cbb8",
    "compose20": "7aea26b1b8ce9592e67119e94a72238d",
    "count": "09b189b34f48c0c38f27f03ac163e6a1",
    "dev": "f36240f8a095527fdb7ce10ecbd6e616",
    "spatial": "0f5a99830bf5077dde0ad3872a34dd01",
    "spatial20": "2df0fb85e27b8e9aaebc1a08195fccec",
    "train20": "08f1856924c5a8454e2f89dba5dfe543",
    "unseen": "7eb8319a8ab494509256fea4427f0eae",
}


@pytest.mark.parametrize("name", sorted(sets.SET_NAMES))
def test_a_written_set_is_the_same_bytes_on_every_machine(tmp_path, name):
    sets.write(name, tmp_path)
    digest = hashlib.sha256((tmp_path / f"{name}.jsonl").read_bytes())
    for picture in sorted((tmp_path / "images").iterdir()):
        digest.update(picture.read_bytes())
    assert digest.hexdigest()[:32] == PINNED[name]


def test_a_written_set_is_not_overwritten(tmp_path):
    sets.write("train20", tmp_path)
    with pytest.raises(DataError, match="never overwritten"):
        sets.write("train20", tmp_path)


def test_written_rows_are_grit_rows_and_pictures_decode(tmp_path):
    jsonl = sets.write("stickers/train20", tmp_path)
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert {"question", "answer", "image", "width", "height", "bboxs", "dataset"} <= rows[0].keys()
    with Image.open(tmp_path / "images" / rows[0]["image"]) as picture:
        assert picture.size == (rows[0]["width"], rows[0]["height"])
        assert picture.tobytes() == world.draw(sets.asked("train20")[0].scene).tobytes()


def test_an_unknown_set_is_named_with_the_known_ones():
    with pytest.raises(DataError, match="train20"):
        sets.asked("stickers/nope")
