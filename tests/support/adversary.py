"""Answers that a policy paid by the judge would try, and answers that mean the right thing in other clothes.

`false_answers` holds the right token and does not mean it; `true_answers` means it. Both are combinations of templates
with values, drawn with a seed. Each family is one way of (not) meaning it; the templates of a family share it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import adversary_more
import adversary_templates
import adversary_third
from adversary_templates import Families

WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
]
NOUNS = {
    "dogs": "dog", "zebras": "zebra", "people": "person", "chairs": "chair", "red cars": "red car", "cups": "cup",
    "sheep": "sheep", "traffic lights": "traffic light", "children": "child", "boxes": "box",
}  # fmt: skip
OTHER_NOUNS = ("cats", "giraffes", "spoons", "trees", "buses")
THINGS = (
    "dog",
    "cat",
    "bird",
    "teddy bear",
    "hot dog",
    "cell phone",
    "umbrella",
    "bench",
    "truck",
    "woman",
    "kite",
    "bottle",
)
PLACES = ("in the picture", "in the image", "on the left", "on the table", "in this photo")
RELATIONS = (
    ("left of", "right of"), ("behind", "in front of"), ("above", "below"), ("inside", "outside"), ("on", "under"),
)  # fmt: skip
LISTINGS = (
    "{q}\n(A) {a}\n(B) {b}\n(C) {c}\n(D) {d}",
    "{q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}",
    "{q} A. {a} B. {b} C. {c} D. {d}",
    "{q} A) {a} B) {b} C) {c} D) {d}",
    "{q}\nA\uff0e{a}\nB\uff0e{b}\nC\uff0e{c}\nD\uff0e{d}",
    "{q}\n\uff08A\uff09{a}\n\uff08B\uff09{b}\n\uff08C\uff09{c}\n\uff08D\uff09{d}",
    "{q}\nA\u3001{a}\nB\u3001{b}\nC\u3001{c}\nD\u3001{d}",
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\nQuestion: {q}\nChoices:\n(A) {a}\n(B) {b}\n(C) {c}\n(D) {d}",
    "{q}\nOptions: A: {a}, B: {b}, C: {c}, D: {d}",
    "{q}\na. {a}\nb. {b}\nc. {c}\nd. {d}",
    "{q} (a) {a} (b) {b} (c) {c} (d) {d}",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One answer, and whether it means what is expected."""

    expected: str
    given: str
    question: str | None
    means_it: bool
    family: str
    template: str


def _count(draw: random.Random) -> dict[str, str]:
    n = draw.randrange(1, 13)
    nouns = draw.choice(list(NOUNS))
    m = draw.choice([k for k in range(2, 14) if k != n])
    part = draw.randrange(1, n) if n > 1 else 1
    noun = NOUNS[nouns] if n == 1 else nouns
    return {
        "n": str(n), "w": WORDS[n], "W": WORDS[n].capitalize(), "m": str(m), "wm": WORDS[m], "n1": str(n + 1), "n2": str(n + 2),
        "p": str(part), "r": str(n - part), "wp": WORDS[part], "wr": WORDS[n - part], "t": f"{n}0", "nouns": nouns, "noun": noun,
        "other": draw.choice(OTHER_NOUNS), "place": draw.choice(PLACES), "are": "is" if n == 1 else "are", "double": str(2 * n),
    }  # fmt: skip


def _count_question(values: dict[str, str], draw: random.Random) -> str:
    if values["place"] in ("on the left", "on the table"):  # else the answer says more than the question asks
        return "How many {nouns} are {place}?".format(**values)
    return draw.choice(
        (
            "How many {nouns} are there?",
            "How many {nouns} are {place}?",
            "How many {nouns} can you see {place}?",
            "Count the {nouns}.",
        )
    ).format(**values)


def counts(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    values = _count(draw)
    if "{p}" in template or "{wp}" in template:
        while values["n"] == "1":
            values = _count(draw)
    if family.startswith("one") != (values["n"] == "1") and family.startswith("one"):
        values |= {"n": "1", "w": "one", "W": "One", "noun": NOUNS[values["nouns"]], "are": "is"}
    return Case(
        values["n"],
        template.format(**values),
        _count_question(values, draw),
        means_it,
        f"count: {family}",
        template,
    )


def zeros(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    values = _count(draw) | {"n": "0"}
    return Case(
        "0", template.format(**values), _count_question(values, draw), means_it, f"zero: {family}", template
    )


def options(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    texts = draw.sample(THINGS, 4)
    right = draw.randrange(4)
    wrong = draw.choice([k for k in range(4) if k != right])
    third = draw.choice([k for k in range(4) if k not in (right, wrong)])
    letters = "ABCD"
    thing, reference = texts[right], texts[wrong]
    question = draw.choice(LISTINGS).format(
        q=draw.choice(("Which is left?", "What is on the table?", "Which thing is shown?")),
        **dict(zip("abcd", texts, strict=True)),
    )
    values = {
        "L": letters[right], "l": letters[right].lower(), "t": thing, "T": thing.capitalize(), "K": letters[wrong], "u": reference,
        "M": letters[third], "v": texts[third], "F": chr(ord(letters[right]) + 0xFEE0),
        "all": ", ".join(letters), "listed": ", ".join(f"{x}. {y}" for x, y in zip(letters, texts, strict=True)), "question": question,
    }  # fmt: skip
    expected = draw.choice(
        (values["L"], thing, f"({values['L']}) {thing}", f"{values['L']}. {thing}", f"({values['L']})")
    )
    return Case(expected, template.format(**values), question, means_it, f"option: {family}", template)


def polar(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    first, second = draw.sample(THINGS, 2)
    relation, opposite = draw.choice(RELATIONS)
    yes = draw.random() < 0.5
    if family.startswith(("yes", "no")):
        yes = family.startswith("yes")
    values = {
        "x": "Yes" if yes else "No", "lower": "yes" if yes else "no", "y": "No" if yes else "Yes", "lower_y": "no" if yes else "yes",
        "a": first, "b": second, "rel": relation, "opp": opposite, "not": "" if yes else "not ", "un": "not " if yes else "",
        "upper": "YES" if yes else "NO", "true": "True" if yes else "False", "held": relation if yes else opposite,
    }  # fmt: skip
    question = draw.choice(
        (
            "Is the {a} {rel} the {b}?",
            "Is the {a} {rel} the {b}? Please answer yes or no.",
            "Is the {a} {rel} the {b} in the image?",
        )
    ).format(**values)
    return Case(
        values["x"],
        template.format(**values, question=question),
        question,
        means_it,
        f"polar: {family}",
        template,
    )


def names(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    thing, other, reference = draw.sample(THINGS, 3)
    relation, opposite = draw.choice(RELATIONS)
    question = draw.choice(
        ("What is {rel} the {r}?", "Which object is {rel} the {r}?", "What is the object {rel} the {r}?")
    )
    article = "an" if thing[0] in "aeiou" else "a"
    values = {
        "t": thing, "T": thing.capitalize(), "o": other, "r": reference, "rel": relation, "opp": opposite, "an": article,
        "An": article.capitalize(),
    }  # fmt: skip
    asked = question.format(**values)
    return Case(
        thing, template.format(**values, question=asked), asked, means_it, f"name: {family}", template
    )


def expressions(families: Families, means_it: bool, draw: random.Random) -> Case:
    family, template = _template(families, draw)
    a, b, c = draw.sample(range(2, 10), 3)
    expected, given = template.split(" => ")
    values = {
        "a": str(a),
        "b": str(b),
        "c": str(c),
        "wa": WORDS[a],
        "wb": WORDS[b],
        "ab": f"{a}{b}",
        "a1": str(a + 1),
    }
    return Case(
        expected.format(**values), given.format(**values), None, means_it, f"expression: {family}", template
    )


def _template(families: Families, draw: random.Random) -> tuple[str, str]:
    family = draw.choice(list(families))
    return family, draw.choice(families[family])


Maker = Callable[[random.Random], Case]
MAKERS: dict[str, Callable[[Families, bool, random.Random], Case]] = {
    "COUNTS": counts,
    "ZEROS": zeros,
    "OPTIONS": options,
    "POLAR": polar,
    "NAMES": names,
    "EXPRESSIONS": expressions,
}
SETS = ((adversary_templates, ""), (adversary_more, "MORE_"), (adversary_third, "THIRD_"))


def _makers(truth: str) -> tuple[Maker, ...]:
    """A maker for each kind of answer in each set of templates."""
    found = list[Maker]()
    for module, prefix in SETS:
        for name, make in MAKERS.items():
            families = getattr(module, f"{prefix}{truth}_{name}", None)
            if families is not None:
                found.append(partial(make, families, truth == "TRUE"))
        pairs = getattr(module, f"{prefix}PAIRS_THAT_{'MATCH' if truth == 'TRUE' else 'DIFFER'}")
        found.append(partial(expressions, {"pairs": pairs}, truth == "TRUE"))
    return tuple(found)


FALSE_MAKERS = _makers("FALSE")
TRUE_MAKERS = _makers("TRUE")


def false_answers(n: int, seed: int) -> Iterator[Case]:
    """n answers that hold what is expected, in part or whole, and do not mean it."""
    yield from _drawn(FALSE_MAKERS, n, seed)


def true_answers(n: int, seed: int) -> Iterator[Case]:
    """n answers that mean what is expected, said otherwise."""
    yield from _drawn(TRUE_MAKERS, n, seed)


def _drawn(makers: tuple[Maker, ...], n: int, seed: int) -> Iterator[Case]:
    draw = random.Random(seed)
    for index in range(n):
        yield makers[index % len(makers)](draw)
