"""The questions asked about a sticker scene: counting, spatial yes/no, open spatial, detection."""

from __future__ import annotations

import random
from dataclasses import dataclass

from opengrit.data.stickers.world import KINDS, MAX_OBJECTS, PLURALS, Placed, Scene, compose

RELATIONS = ("left of", "right of", "above", "below")
MARGIN = 12  # pixels by which centres differ along the asked axis, so that no answer is a matter of taste
MAX_COUNT = 5

# Pairs of kinds that no training or pretraining question relates to each other: stickers/unseen asks about these.
HELD_OUT_PAIRS = frozenset(
    frozenset(pair)
    for pair in (
        ("dog", "hat"),
        ("cat", "ball"),
        ("car", "tree"),
        ("cup", "star"),
        ("apple", "book"),
        ("fish", "flower"),
    )
)


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question about a scene with its answer and the objects a careful answer points at.

    `looks` names the kind of a question that needs two looks (`two_looks.KINDS_OF_LOOKS`) and is empty for one look.
    """

    scene: Scene
    question: str
    answer: str
    pointed: tuple[Placed, ...]
    key_words: tuple[str, ...]
    looks: str = ""


def holds(relation: str, a: Placed, b: Placed) -> bool:
    """Whether `a` is `relation` `b`, judged by centres."""
    return offset(relation, a, b) > 0


def offset(relation: str, a: Placed, b: Placed) -> float:
    """By how many pixels `a` is `relation` `b`, centre to centre; negative where it is on the other side."""
    (ax, ay), (bx, by) = a.centre, b.centre
    return {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}[relation]


def ask_count(rng: random.Random, count: int, styles: tuple[str, ...]) -> SceneQuestion:
    """A counting question whose answer is `count` (0 to MAX_COUNT), with other kinds around."""
    while True:
        kind = rng.choice(KINDS)
        others = [k for k in KINDS if k != kind]
        room = MAX_OBJECTS - count
        distractors = [rng.choice(others) for _ in range(rng.randint(1 if count == 0 else 0, min(3, room)))]
        scene = compose(rng, [kind] * count + distractors, styles)
        if scene is not None:
            return count_question(scene, kind)


def count_question(scene: Scene, kind: str) -> SceneQuestion:
    """How many of a kind the scene shows."""
    pointed = scene.of_kind(kind)
    return SceneQuestion(
        scene, f"How many {PLURALS[kind]} are there?", str(len(pointed)), pointed, (PLURALS[kind],)
    )


def ask_yes_no(
    rng: random.Random, yes: bool, styles: tuple[str, ...], *, held_out: bool = False
) -> SceneQuestion:
    """A spatial question whose answer is Yes or No as asked for."""
    while True:
        a, b = sample_pair(rng, held_out)
        others = [k for k in KINDS if k not in (a, b)]
        scene = compose(rng, [a, b, *rng.sample(others, rng.randint(0, 2))], styles)
        asked = scene and yes_no_question(scene, (a, b), rng.choice(RELATIONS))
        if asked and (asked.answer == "Yes") == yes:
            return asked


def yes_no_question(scene: Scene, kinds: tuple[str, str], relation: str) -> SceneQuestion | None:
    """Is the one left of, right of, above or below the other; None when it is too close to call."""
    (a,), (b,) = scene.of_kind(kinds[0]), scene.of_kind(kinds[1])
    if abs(offset(relation, a, b)) < MARGIN:
        return None
    answer = "Yes" if holds(relation, a, b) else "No"
    return SceneQuestion(scene, f"Is the {a.kind} {relation} the {b.kind}?", answer, (a, b), kinds)


def ask_open(rng: random.Random, styles: tuple[str, ...], *, held_out: bool = False) -> SceneQuestion:
    """What is left of, right of, above or below an object: exactly one thing is."""
    while True:
        a, b = sample_pair(rng, held_out)
        others = [k for k in KINDS if k not in (a, b)]
        scene = compose(rng, [a, b, *rng.sample(others, rng.randint(0, 1))], styles)
        asked = scene and open_question(scene, b, rng.choice(RELATIONS))
        if asked and asked.answer == a:
            return asked


def open_question(scene: Scene, anchor_kind: str, relation: str) -> SceneQuestion | None:
    """What stands in a relation to the anchor; None unless exactly one object clearly does."""
    (anchor,) = scene.of_kind(anchor_kind)
    offsets = [(offset(relation, o, anchor), o) for o in scene.objects if o is not anchor]
    found = [o for offset, o in offsets if offset > 0]
    if len(found) != 1 or any(abs(offset) < MARGIN for offset, _ in offsets):
        return None
    return SceneQuestion(
        scene,
        f"What is {relation} the {anchor_kind}?",
        found[0].kind,
        (found[0], anchor),
        (found[0].kind, anchor_kind),
    )


def sample_pair(rng: random.Random, held_out: bool = False) -> tuple[str, str]:
    """Two different kinds, from the held-out pairs or from the others."""
    while True:
        a, b = rng.sample(KINDS, 2)
        if (frozenset((a, b)) in HELD_OUT_PAIRS) == held_out:
            return a, b
