"""Questions that need two looks at a scene: how many on one side, how many between, more of this than of that, beside the leftmost.

What a question points at stands in the order in which looking answers it: from the outermost thing to the one where the count stops for a
count on one side, along the line between two things, kind by kind for a comparison, step by step for a walk. So boxes that are written in
that order leave little to decide at the end.
"""

from __future__ import annotations

import random
from itertools import pairwise

from opengrit.data.stickers.questions import HELD_OUT_PAIRS, RELATIONS, SceneQuestion, offset
from opengrit.data.stickers.world import KINDS, PLURALS, Placed, Scene, compose

SUPERLATIVES = {"leftmost": "left of", "rightmost": "right of", "topmost": "above", "lowest": "below"}
KINDS_OF_LOOKS = ("side", "comparison", "superlative", "between")
DIRECTIONS = {"from left to right": 0, "from top to bottom": 1}  # and the axis
MOST_COUNTED = 4
LEAST_APART = 6  # pixels by which centres differ along the asked axis


def ask_two_looks(rng: random.Random, index: int, styles: tuple[str, ...]) -> SceneQuestion:
    """The question number `index` of a set in which the four kinds take turns and answers are balanced."""
    kind, turn = KINDS_OF_LOOKS[index % 4], index // 4
    if kind == "side":
        return ask_side(rng, turn % (MOST_COUNTED + 1), styles)
    if kind == "between":
        return ask_between(rng, turn % (MOST_COUNTED + 1), styles)
    return (
        ask_superlative(rng, styles) if kind == "superlative" else ask_comparison(rng, turn % 2 == 0, styles)
    )


def ask_side(rng: random.Random, count: int, styles: tuple[str, ...]) -> SceneQuestion:
    """How many of a kind stand on one side of a thing: `count` (0 to MOST_COUNTED) do, up to three others do not."""
    while True:
        kind, anchor = sample_apart(rng)
        total = count + rng.randint(1 if count == 0 else 0, 3)
        others = [k for k in KINDS if k not in (kind, anchor)]
        scene = compose(rng, [kind] * total + [anchor] + rng.sample(others, rng.randint(0, 1)), styles)
        asked = scene and side_question(scene, kind, anchor, rng.choice(RELATIONS))
        if asked and asked.answer == str(count):
            return asked


def side_question(scene: Scene, kind: str, anchor_kind: str, relation: str) -> SceneQuestion | None:
    """How many of a kind are in a relation to the anchor; None where one is too close to call."""
    (anchor,), counted = scene.of_kind(anchor_kind), scene.of_kind(kind)
    offsets = [(offset(relation, o, anchor), o) for o in counted]
    if any(abs(apart) < LEAST_APART for apart, _ in offsets):
        return None
    there = sorted(((apart, o) for apart, o in offsets if apart > 0), key=lambda pair: pair[0], reverse=True)
    return SceneQuestion(
        scene,
        f"How many {PLURALS[kind]} are {relation} the {anchor_kind}?",
        str(len(there)),
        (*(o for _, o in there), anchor),
        (PLURALS[kind], anchor_kind),
        looks="side",
    )


def ask_comparison(rng: random.Random, yes: bool, styles: tuple[str, ...]) -> SceneQuestion:
    """Whether there are more of one kind than of another; counts are 0 to 4, and a tie is No."""
    while True:
        kinds = rng.sample(KINDS, 3)
        counts = (rng.randint(0, 4), rng.randint(0, 4))
        if not 2 <= sum(counts) <= 7 or (counts[0] == counts[1] and rng.random() < 0.5):
            continue
        objects = [kinds[0]] * counts[0] + [kinds[1]] * counts[1] + [kinds[2]] * rng.randint(0, 1)
        scene = compose(rng, objects, styles)
        asked = scene and comparison_question(scene, (kinds[0], kinds[1]))
        if asked and (asked.answer == "Yes") == yes:
            return asked


def comparison_question(scene: Scene, kinds: tuple[str, str]) -> SceneQuestion:
    """Whether the scene shows more of the first kind than of the second."""
    first, second = (scene.of_kind(kind) for kind in kinds)
    return SceneQuestion(
        scene,
        f"Are there more {PLURALS[kinds[0]]} than {PLURALS[kinds[1]]}?",
        "Yes" if len(first) > len(second) else "No",
        (*first, *second),
        (PLURALS[kinds[0]], PLURALS[kinds[1]]),
        looks="comparison",
    )


def ask_superlative(rng: random.Random, styles: tuple[str, ...]) -> SceneQuestion:
    """What stands in a relation to the outermost of two or three things of a kind."""
    while True:
        kind = rng.choice(KINDS)
        others = rng.sample([k for k in KINDS if k != kind], rng.randint(2, 3))
        scene = compose(rng, [kind] * rng.randint(2, 3) + others, styles)
        if scene is None:
            continue
        word, relation = rng.choice(list(SUPERLATIVES)), rng.choice(RELATIONS)
        asked = superlative_question(scene, kind, word, relation)
        if asked:
            return asked


def superlative_question(scene: Scene, kind: str, word: str, relation: str) -> SceneQuestion | None:
    """None where the outermost one or the thing beside it is too close to call, or another of the kind has the same answer."""
    side = SUPERLATIVES[word]
    fixed = scene.objects[0]  # offsets from one object order all along the axis
    anchor, *rest = sorted(scene.of_kind(kind), key=lambda o: offset(side, o, fixed), reverse=True)
    if offset(side, anchor, rest[0]) < LEAST_APART:
        return None
    found = only_one(scene, anchor, relation)
    if found is None or found.kind == kind or related_elsewhere(kind, found.kind):
        return None
    if any((other := only_one(scene, o, relation)) and other.kind == found.kind for o in rest):
        return None
    return SceneQuestion(
        scene,
        f"What is {relation} the {word} {kind}?",
        found.kind,
        (anchor, found),
        (found.kind, kind),
        looks="superlative",
    )


def ask_between(rng: random.Random, count: int, styles: tuple[str, ...]) -> SceneQuestion:
    """How many things stand between two others along an axis: `count` (0 to MOST_COUNTED) do, up to two more do not."""
    while True:
        ends = sample_apart(rng)
        others = [k for k in KINDS if k not in ends]
        total = count + rng.randint(0 if count else 1, 2)
        scene = compose(rng, [*ends, *(rng.choice(others) for _ in range(total))], styles)
        asked = scene and between_question(scene, ends, rng.choice(list(DIRECTIONS)))
        if asked and asked.answer == str(count):
            return asked


def between_question(scene: Scene, ends: tuple[str, str], direction: str) -> SceneQuestion | None:
    """How many things stand between two along an axis; None where centres are too close to tell their order."""
    axis = DIRECTIONS[direction]
    found = [scene.of_kind(kind)[0] for kind in ends]
    line = sorted(scene.objects, key=lambda o: o.centre[axis])
    first, last = sorted(line.index(one) for one in found)
    near = line[max(0, first - 1) : last + 2]
    if any(b.centre[axis] - a.centre[axis] < LEAST_APART for a, b in pairwise(near)):
        return None
    return SceneQuestion(
        scene,
        f"How many things are between the {ends[0]} and the {ends[1]} {direction}?",
        str(last - first - 1),
        tuple(line[first : last + 1]),
        ends,
        looks="between",
    )


def only_one(scene: Scene, anchor: Placed, relation: str) -> Placed | None:
    """The one object that stands in a relation to the anchor; None unless exactly one clearly does."""
    offsets = [(offset(relation, o, anchor), o) for o in scene.objects if o is not anchor]
    if any(abs(apart) < LEAST_APART for apart, _ in offsets):
        return None
    found = [o for apart, o in offsets if apart > 0]
    return found[0] if len(found) == 1 else None


def sample_apart(rng: random.Random) -> tuple[str, str]:
    """Two different kinds that are not held out."""
    while True:
        a, b = rng.sample(KINDS, 2)
        if not related_elsewhere(a, b):
            return a, b


def related_elsewhere(a: str, b: str) -> bool:
    """Whether the two kinds are related in `stickers/unseen` only."""
    return frozenset((a, b)) in HELD_OUT_PAIRS
