"""Yes or no, as an answer says it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from opengrit.judges.assertion import (
    ARTICLES,
    DENIALS,
    DOUBTS,
    EMPHASIS,
    FRAME,
    OPPOSITES,
    PREPOSITIONS,
    SCENE,
    SEEN,
    Context,
    clause_end,
    is_doubtful,
    is_framing,
    is_reasoning,
    is_verdict,
    says_the_opposite,
    sentence_start,
    word_set,
)
from opengrit.judges.numerals import UNITS
from opengrit.judges.wording import Token, singular, tokens

YES = word_set("yes yeah yep yup true affirmative \u662f \u662f\u7684 \u5bf9 s\u00ed oui ja")
NO = word_set("no nope nah not false negative \u4e0d\u662f \u4e0d \u6ca1\u6709 non nein")
_AUXILIARIES = word_set("is are was were do does doe did can could has have had will would should")
_DENIES = word_set(
    "not isn't aren't wasn't weren't doesn't don't didn't can't cannot couldn't hasn't haven't won't"
)
_SUBJECTS = word_set("it there they that this he she i we these those")
_FORMAT = ("please", "answer")
# What a refusal has none of: "No image was provided" answers nothing.
_FALSE_NOUNS = word_set(
    "idea way clue answer doubt comment image picture photo photograph information context input file access"
)


def asks_yes_or_no(question: str) -> bool:
    """Whether a question is one that yes or no answers: it begins with a verb, or says so."""
    words = [token.text for token in tokens(question) if token.is_word]
    return words[:1] != [] and (words[0] in _AUXILIARIES or "yes" in words or "true" in words)


def polarity(said: str, context: Context) -> str | None:
    """ "yes" or "no" as the answer says it, or None where it says neither, both, or is in doubt.

    A whole sentence that repeats the question as a statement says yes, and its denial no.
    """
    parts = tokens(said)
    place = next((i for i, token in enumerate(parts) if token.text in YES | NO), None)
    stated = _as_statement(parts, context)
    if place is None or parts[place].text == "not":
        return stated
    last = max(i for i, token in enumerate(parts) if token.text in YES | NO)
    for at in dict.fromkeys((place, last)):
        found = _polarity_at(parts, at, context)
        if found is not None:
            return found
    return stated


def _polarity_at(parts: Sequence[Token], place: int, context: Context) -> str | None:
    polar = "yes" if parts[place].text in YES else "no"
    begin = sentence_start(parts, place)
    lead = parts[begin:place]
    if not is_framing(lead, Context()) or not is_reasoning(parts[:begin], lead, context):
        return None
    if any(_polar(token.text) not in (None, polar) for token in parts[:begin]):
        return None
    rest = list(parts[place + 1 :])
    following = next((token for token in rest if token.text not in ".,:"), None)
    if following is not None and following.is_number:
        return None  # No. 5
    if rest and rest[0].is_word and not _goes_on(rest, polar, context):
        return None
    if any(not token.is_word and not token.is_mark and not token.is_number for token in rest[:1]):
        return None
    if _is_taken_back(rest, polar, context):
        return None
    return polar


def _goes_on(rest: Sequence[Token], polar: str, context: Context) -> bool:
    """Whether words may follow a yes or a no without a mark: "Yes it is", "No dogs are there"; not "no parking"."""
    word = singular(rest[0].text)
    if word in _SUBJECTS or rest[0].text in ("the", "a", "an", "because", "since"):
        return True
    if word in _FALSE_NOUNS:
        return False
    if rest[0].text in ("is", "are", "was"):
        return is_verdict([token.text for token in rest[: clause_end(rest, 0)]], context)
    clause = [singular(token.text) for token in rest if token.is_word]
    if all(one in EMPHASIS or one in FRAME for one in clause):
        return True
    if polar != "no" or context.asked[1:2] not in (("there",), ("any",)) or word in FRAME:
        return False
    return word in context.content and all(one in context.content | FRAME | SEEN | SCENE for one in clause)


def _is_taken_back(rest: Sequence[Token], polar: str, context: Context) -> bool:
    end = clause_end(rest, 1)
    # "No, that is not true" speaks of what was asked; "No. That is not true" may speak of the no.
    if rest and rest[0].text == "," and _short_form([token.text for token in rest[1:end]]) == polar:
        rest = rest[end:]
    if polar == "yes" and says_the_opposite(rest, context):
        return True
    for words in _clauses(rest):
        if polar == "yes" and _is_denied(words, context):
            return True
        if words == ["not"] or (_is_swapped if polar == "yes" else _is_there)(words, context):
            return True
        if (
            len(words) <= 2
            and _polar(words[0]) not in (None, polar)
            and (len(words) == 1 or words[1] in EMPHASIS)
        ):
            return True
        if words[0] in ("or", "and", "but") and any(_polar(word) not in (None, polar) for word in words[1:3]):
            return True
        if _short_form(words) not in (None, polar) or _stated_in(words, context) not in (None, polar):
            return True
    if any(_says_the_other(rest, index, polar) for index in range(len(rest))):
        return True
    spoken = [token.text for token in rest]
    if "%" in spoken:
        return True
    if any(
        spoken[at] == "not" and spoken[at + 1 : at + 2] and spoken[at + 1] in _UNSURE
        for at in range(len(spoken))
    ):
        return True
    # A no may be followed by denials.
    kept = [token for token in rest if token.text not in _DENIES | {"no"}] if polar == "no" else rest
    return is_doubtful(kept)


def _asked(context: Context) -> list[str]:
    """The words of the question, without a request for a form of answer."""
    asked = list(context.asked)
    return asked[: asked.index(_FORMAT[0])] if _FORMAT[0] in asked else asked


# Relations that are another one when their sides change.
_ONE_WAY = (OPPOSITES.keys() | SCENE) - word_set(
    "near far next beside between together both each another side"
)


def _is_swapped(words: Sequence[str], context: Context) -> bool:
    """Whether the things of a question change sides: "the cat is left of the dog" where the dog was."""
    asked = [word for word in _asked(context) if word not in _AUXILIARIES]
    sides = [word for word in asked if word in _ONE_WAY]
    things = [word for word in asked if word in context.content - FRAME - SCENE - PREPOSITIONS]
    plain = [singular(word) for word in words]
    if len(set(things)) < 2 or not {things[0], things[-1]} <= set(plain):
        return False
    between = plain[plain.index(things[-1]) + 1 : plain.index(things[0])]
    return any(word in between for word in [*sides, *things[1:-1]])


def _is_denied(words: Sequence[str], context: Context) -> bool:
    """Whether a thing of the question is said to be absent: "Yes, no hat", "Yes, without a hat"."""
    said = [singular(word) for word in words if word not in ARTICLES]
    return any(
        word in ("no", "without") and word not in context.question and then in context.content - FRAME
        for word, then in pairwise(said)
    )


def _is_there(words: Sequence[str], context: Context) -> bool:
    """Whether a clause says that there is what a question asks for: "there are two people"."""
    plain = {singular(word) for word in words}
    asked = {word for word in _asked(context)[2:] if word not in FRAME | ARTICLES | {"any", "some"}}
    if context.asked[:2] not in (("is", "there"), ("are", "there")) or set(words) & DENIALS:
        return False
    if any(word in UNITS or word[0].isdigit() for word in asked) or not asked <= plain:
        return False
    return any(
        pair in ("there is", "there are", "is there", "are there") for pair in map(" ".join, pairwise(words))
    ) or bool(plain & {"there're", "there's"})


def _clauses(parts: Sequence[Token]) -> list[list[str]]:
    clauses = [list[str]()]
    for token in parts:
        if token.is_mark:
            clauses.append([])
        else:
            clauses[-1].append(token.text)
    return [words for words in clauses if words]


def _says_the_other(rest: Sequence[Token], index: int, polar: str) -> bool:
    """Whether a later word is the other answer: a yes or true anywhere, a no or false that no noun follows."""
    found = _polar(rest[index].text)
    if found in (None, polar) or rest[index].text == "not":
        return False
    following = rest[index + 1] if index + 1 < len(rest) else None
    return found == "yes" or following is None or not following.is_word


_UNSURE = word_set("sure certain really quite exactly yes no not necessarily entirely always")
_EXPANDED = {
    "it's": ("it", "is"), "that's": ("that", "is"), "there's": ("there", "is"), "isn't": ("is", "not"), "wasn't": ("was", "not"),
}  # fmt: skip


def _polar(word: str) -> str | None:
    if word in YES:
        return "yes"
    return "no" if word in NO else None


def _short_form(words: Sequence[str]) -> str | None:
    """ "it is" says yes, "it isn't" and "it is not" say no; None for anything longer."""
    words = [
        word
        for word in words
        if word not in EMPHASIS - {"is", "it", "there", "right", "correct", "so"}
        and word not in ("of", "course", "the")
    ]
    words = [part for word in words for part in _EXPANDED.get(word, (word,))]
    if (
        len(words) >= 3
        and words[0] in _SUBJECTS
        and words[1] in ("is", "was")
        and words[-1] in ("true", "correct", "right", "case")
    ):
        return {2: "yes", 3: "no"}.get(len(words) - 1) if len(words) == 3 or words[2] == "not" else None
    if not 2 <= len(words) <= 3 or words[0] not in _SUBJECTS or words[1] not in _AUXILIARIES | _DENIES:
        return None
    if words[1] in _DENIES or words[2:] == ["not"]:
        return "no" if len(words) == 2 or words[2:] == ["not"] else None
    return "yes" if len(words) == 2 else None


def _statement(words: Sequence[str], context: Context) -> str | None:
    """ "yes" for the question's own words put as a statement, "no" for them with a not; None for others."""
    asked = _asked(context)
    if len(asked) < 3 or asked[0] not in _AUXILIARIES:
        return None
    plain, denied = list[str](), 0
    for word in words:
        if word in ("not", "no"):
            denied += 1
        elif word in _DENIES:
            denied += 1
            plain.append(singular(word.removesuffix("n't")) if word.endswith("n't") else "can")
        else:
            plain.append(singular(word))
    if asked[0] in plain:
        plain.remove(asked[0])
    plain = [word for word in plain if word not in ("indeed", "clearly", "definitely", "obviously")]
    articles = ("a", "an", "the", "any", "in", "image", "picture", "photo", "this")
    wanted = [word for word in asked[1:] if word not in articles]
    said = [word for word in plain if word not in articles]
    if not wanted or not (said == wanted or _is_its_end(said, wanted)):
        return None
    return ("yes", "no", None)[min(denied, 2)]


def _stated_in(words: Sequence[str], context: Context) -> str | None:
    """As `_statement`, of a clause after its framing: "because the dog is left of the cat"."""
    for start in range(min(len(words), 8)):
        if (found := _statement(words[start:], context)) is not None:
            return found
        if words[start] not in FRAME and words[start] not in ("because", "since", "indeed"):
            return None
    return None


def _is_its_end(said: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a clause with a pronoun for subject ends as the question does: "it left of cat"."""
    tail = list(said[1:])
    return (
        bool(said)
        and said[0] in _SUBJECTS
        and 2 <= len(tail) < len(wanted)
        and list(wanted[-len(tail) :]) == tail
    )


def _as_statement(parts: Sequence[Token], context: Context) -> str | None:
    """The polarity of an answer that is one sentence, the question put as a statement."""
    body = list(parts)
    while body and body[-1].text in ".!\n":
        body.pop()
    if not body or any(not token.is_word and not token.is_number for token in body):
        return None
    words = [token.text for token in body]
    if context.is_known and asks_yes_or_no(" ".join(context.asked)):
        if words in (["correct"], ["that's", "correct"]):
            return "yes"
        if words in (["incorrect"], ["not", "correct"], ["not", "true"]):
            return "no"
    if set(words) & DOUBTS:
        return None
    found = _short_form(words)
    return found if found is not None and context.is_known else _statement(words, context)
