"""What the tiny models read while they are pretrained: scenes of sticker world with several questions each."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache

from opengrit.core.boxes import Size
from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import (
    MAX_COUNT,
    RELATIONS,
    SceneQuestion,
    ask_count,
    ask_open,
    ask_yes_no,
    count_question,
    yes_no_question,
)
from opengrit.data.stickers.two_looks import (
    DIRECTIONS,
    SUPERLATIVES,
    ask_two_looks,
    between_question,
    comparison_question,
    related_elsewhere,
    side_question,
    superlative_question,
)
from opengrit.data.stickers.world import KINDS, PLURALS, SEEN_STYLES, Placed, Scene
from opengrit.grounding.prompts import Strategy, detection_question, user_text


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and the reply to be learned; `kind` names the reply's answer in the training log."""

    user: str
    reply: str
    kind: str


@dataclass(frozen=True, slots=True)
class Lesson:
    """A scene and the turns asked about it, each of which sees the picture and itself only."""

    scene: Scene
    turns: tuple[Turn, ...]


TWO_LOOKS = 0.6  # share of the lessons whose questions need two looks

# How often each style of grounded reply is shown in the last phase. `full` is GRIT's format done well; `unpointed` is right
# as often but shows no evidence, so that a reward on the answer alone cannot tell the two apart; the others are
# the faults that reinforcement has to select against.
FAULTS = (("full", 0.11), ("unpointed", 0.32), ("no_rethink", 0.38), ("wrong_boxes", 0.10), ("bare", 0.09))
HEEDLESS = (
    0.6  # share of the faulty answers that ignore the picture: the same answer to every question of a kind
)


@lru_cache(maxsize=1)
def held_out() -> frozenset[str]:
    """Fingerprints of every packaged scene, the twenty training rows included: none of them is ever shown."""
    return frozenset(a.scene.fingerprint() for name in sets.SET_NAMES for a in sets.asked(name))


class Teacher:
    """Draws lessons; `write_box` turns a sprite's edges into the numbers the model family writes."""

    def __init__(self, rng: random.Random, write_box) -> None:
        self.rng = rng
        self.write_box = write_box

        self.waiting: dict[Size, list[Lesson]] = {}

    def batch(self, size: int, *, faulty: bool) -> list[Lesson]:
        """`size` new lessons on canvases of one size; with `faulty`, grounded replies are drawn from FAULTS."""
        while True:
            lesson = self._draw(faulty)
            if lesson.scene.fingerprint() in held_out():
                continue
            bucket = self.waiting.setdefault(lesson.scene.size, [])
            bucket.append(lesson)
            if len(bucket) == size:
                return self.waiting.pop(lesson.scene.size)

    def _draw(self, faulty: bool) -> Lesson:
        if self.rng.random() < TWO_LOOKS:
            return self._draw_two_looks(faulty)
        rng, kind = self.rng, self.rng.random()
        if kind < 0.38:
            asked = ask_count(rng, rng.randint(0, MAX_COUNT), SEEN_STYLES)
            other = count_question(
                asked.scene, rng.choice([o.kind for o in asked.scene.objects] or list(KINDS))
            )
            direct = [asked, other]
        else:
            asked = (
                ask_yes_no(rng, rng.random() < 0.5, SEEN_STYLES) if kind < 0.8 else ask_open(rng, SEEN_STYLES)
            )
            pair = (asked.pointed[0].kind, asked.pointed[1].kind)
            more = [
                yes_no_question(asked.scene, rng.choice([pair, pair[::-1]]), r)
                for r in rng.sample(RELATIONS, 4)
            ]
            direct = [asked, *[m for m in more if m][:2]]
        turns = [
            Turn(user_text(Strategy.DIRECT, a.question), a.answer, f"direct_{answer_kind(a)}") for a in direct
        ]
        grounded = self.grounded_reply(asked, faulty)
        turns.append(
            Turn(user_text(Strategy.GROUNDED, asked.question), grounded, f"grounded_{answer_kind(asked)}")
        )
        turns.append(self._detection(asked.scene))
        return Lesson(asked.scene, tuple(turns))

    def _draw_two_looks(self, faulty: bool) -> Lesson:
        """One or two questions about a scene, each asked plainly and under the grounded prompt: a difference is the chain's."""
        first = ask_two_looks(self.rng, self.rng.randrange(4 * 10), SEEN_STYLES)
        asked = [first, *self._another(first)]
        turns = [Turn(user_text(Strategy.DIRECT, a.question), a.answer, f"direct_{a.looks}") for a in asked]
        turns += [
            Turn(
                user_text(Strategy.GROUNDED, a.question),
                self.grounded_reply(a, faulty),
                f"grounded_{a.looks}",
            )
            for a in asked
        ]
        return Lesson(first.scene, (*turns, self._detection(first.scene)))

    def _another(self, first: SceneQuestion) -> list[SceneQuestion]:
        """One more question of the same kind about the same scene, where there is one with another wording."""
        scene, rng = first.scene, self.rng
        names = [o.kind for o in scene.objects]
        tries: list[SceneQuestion | None] = []
        for _ in range(6):
            relation = rng.choice(RELATIONS)
            if first.looks == "side":
                anchor = first.key_words[1]
                kind = next(k for k in KINDS if PLURALS[k] == first.key_words[0])
                tries.append(side_question(scene, kind, anchor, relation))
            elif first.looks == "comparison":
                pair = tuple(rng.sample(sorted({*names, *first_kinds(first)}), 2))
                tries.append(comparison_question(scene, pair))
            elif first.looks == "superlative":
                word = rng.choice(list(SUPERLATIVES))
                tries.append(superlative_question(scene, first.key_words[1], word, relation))
            elif first.looks == "between":
                single = [kind for kind in names if names.count(kind) == 1]
                a, b = rng.sample(single, 2)
                if not related_elsewhere(a, b):
                    tries.append(between_question(scene, (a, b), rng.choice(list(DIRECTIONS))))
        return [one for one in tries if one is not None and one.question != first.question][:1]

    def _detection(self, scene: Scene) -> Turn:
        present = [o.kind for o in scene.objects]
        kind = self.rng.choice(present) if present and self.rng.random() < 0.9 else self.rng.choice(KINDS)
        found = scene.of_kind(kind)
        reply = ", ".join(self.pointing(o, scene) for o in found) or f"There are no {PLURALS[kind]}."
        return Turn(detection_question(PLURALS[kind]), reply, "detect")

    def pointing(self, placed: Placed, scene: Scene) -> str:
        """One object as the model writes it."""
        return json.dumps({"bbox_2d": self.write_box(placed, scene.size), "label": placed.kind})

    def grounded_reply(self, asked: SceneQuestion, faulty: bool) -> str:
        """A reply to the grounded prompt: full, or with one of the faults."""
        names, weights = zip(*FAULTS, strict=True)
        style = self.rng.choices(names, weights)[0] if faulty else "full"
        boxes = self._boxes(asked.pointed, asked.scene) or f"There are no {asked.key_words[0]}."
        if style == "full":
            return full_reply(boxes, rethinking(asked), asked.answer)
        if style == "bare":
            return self._heedless(asked)
        if style == "unpointed":
            return f"<think>Let me look.</think><rethink>{rethinking(asked)}</rethink><answer>{asked.answer}</answer>"
        if style == "no_rethink":
            # One box, whatever the number of things asked about, and an answer that hardly heeds it.
            one = self._boxes(asked.pointed[:1] if asked.looks else asked.pointed[-1:], asked.scene)
            return f"<think>Let me look. {one}</think><answer>{self._heedless(asked)}</answer>"
        return self._wrong_boxes(asked)

    def _wrong_boxes(self, asked: SceneQuestion) -> str:
        pointed = list(asked.pointed)
        others = [o for o in asked.scene.objects if o not in pointed]
        if others and self.rng.random() < 0.5:
            pointed.append(self.rng.choice(others))
        elif pointed:
            pointed.pop(self.rng.randrange(len(pointed)))
        counts = asked.answer.isdigit() and not asked.looks
        wrong = str(min(len(pointed), MAX_COUNT)) if counts else self._heedless(asked)
        boxes = self._boxes(tuple(pointed), asked.scene) or f"There are no {asked.key_words[0]}."
        return full_reply(boxes, rethinking(asked, wrong), wrong)

    def _boxes(self, pointed: tuple[Placed, ...], scene: Scene) -> str:
        return ", ".join(self.pointing(o, scene) for o in pointed)

    def _heedless(self, asked: SceneQuestion) -> str:
        if self.rng.random() >= HEEDLESS:
            return asked.answer
        if asked.answer.isdigit():
            return "2"
        if asked.answer in ("Yes", "No"):
            return "Yes"
        return asked.pointed[0 if asked.looks else -1].kind


def full_reply(boxes: str, rethink: str, answer: str) -> str:
    """GRIT's format, every tag in place."""
    return f"<think>{boxes}</think><rethink>{rethink}</rethink><answer>{answer}</answer>"


def rethinking(asked: SceneQuestion, answer: str | None = None) -> str:
    """The sentence that says in words what the boxes show (or what a wrong `answer` claims)."""
    answer = asked.answer if answer is None else answer
    if asked.looks:
        return _rethinking_two_looks(asked, answer)
    if asked.answer.isdigit():
        return f"There are {answer} {asked.key_words[0]}."
    a, b = asked.pointed
    if asked.answer not in ("Yes", "No"):
        relation = next(r for r in RELATIONS if f" {r} " in asked.question)
        return f"The {answer} is {relation} the {b.kind}."
    relation = next(r for r in RELATIONS if f" {r} the" in asked.question)
    return f"The {a.kind} is {'' if answer == 'Yes' else 'not '}{relation} the {b.kind}."


def _rethinking_two_looks(asked: SceneQuestion, answer: str) -> str:
    if asked.looks == "side":
        relation = next(r for r in RELATIONS if f" {r} the" in asked.question)
        return f"There are {answer} {asked.key_words[0]} {relation} the {asked.key_words[1]}."
    if asked.looks == "comparison":
        first, second = (sum(PLURALS[o.kind] == word for o in asked.pointed) for word in asked.key_words)
        relation = "more" if first > second else "fewer" if first < second else "not more"
        return f"{first} {asked.key_words[0]} are {relation} than {second} {asked.key_words[1]}."
    if asked.looks == "between":
        return f"There are {answer} things between the {asked.key_words[0]} and the {asked.key_words[1]}."
    relation = next(r for r in RELATIONS if asked.question.startswith(f"What is {r} the"))
    return f"The {answer} is {relation} the {asked.pointed[-2].kind}."


def first_kinds(asked: SceneQuestion) -> list[str]:
    """The kinds that a comparison names, of which the scene may show none."""
    return [kind for kind in KINDS if PLURALS[kind] in asked.key_words]


def answer_kind(asked: SceneQuestion) -> str:
    """count, yesno or open."""
    return "count" if asked.answer.isdigit() else "yesno" if asked.answer in ("Yes", "No") else "open"
