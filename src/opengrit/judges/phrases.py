"""Whether an answer names a thing or a property: the expected words, and around them only what describes or frames them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from opengrit.judges.assertion import (
    ADJECTIVES,
    ARTICLES,
    COPULAS,
    DANGER,
    EMPHASIS,
    FRAME,
    INTERROGATIVES,
    LINKS,
    PREPOSITIONS,
    SCENE,
    SEEN,
    TAIL_STARTS,
    Context,
    clause_end,
    contrast,
    is_doubtful,
    is_explanation,
    is_framing,
    is_reasoning,
    is_verdict,
    says_the_opposite,
    sentence_start,
    word_set,
)
from opengrit.judges.numerals import UNITS
from opengrit.judges.wording import Token, singular, tokens

_ADDS = frozenset({"and", "or", "also", "plus", "&", "/", "|", "with"})


_IN_A_LEAD = ADJECTIVES | word_set(
    "object item thing animal person one single he she he's she's her his their its"
)


def text_is_said(expected: str, said: str, context: Context) -> bool:
    """Whether an answer names what is expected: by its words, in a sentence that adds and takes back nothing."""
    wanted = [word for word in _spoken(tokens(expected)) if word not in ARTICLES] or _spoken(tokens(expected))
    if not wanted:
        return False
    parts = tokens(said)
    places = _places("".join(wanted), parts)
    if not places:
        return False
    return any(
        _is_named(parts, start, end, wanted, context) for start, end in dict.fromkeys((places[0], places[-1]))
    )


def _spoken(parts: Sequence[Token]) -> list[str]:
    return [_spelled(token) for token in parts if not token.is_mark]


def _spelled(token: Token) -> str:
    return str(UNITS[token.text]) if token.text in UNITS else singular(token.text)


def _places(target: str, parts: Sequence[Token]) -> list[tuple[int, int]]:
    """Where words in a row spell the target, spaces and articles apart: cellphone and "cell phone" are one."""
    spelled = ["" if token.text in ARTICLES else _spelled(token) for token in parts]
    found = list[tuple[int, int]]()
    for start, word in enumerate(spelled):
        if not word or parts[start].is_mark or not target.startswith(word):
            continue
        joined, end = word, start + 1
        while len(joined) < len(target) and end < len(parts) and not parts[end].is_mark and end - start < 40:
            if parts[end].is_number and parts[end - 1].is_number:
                break  # 1 2 is not 12
            joined, end = joined + spelled[end], end + 1
        if joined == target and not (end < len(parts) and parts[end].glued and not parts[end].is_mark):
            found.append((start, end))
    return found


def _is_named(parts: Sequence[Token], start: int, end: int, wanted: Sequence[str], context: Context) -> bool:
    begin = sentence_start(parts, start)
    lead, before = parts[begin:start], parts[:begin]
    if not is_framing(lead, context, extra=_IN_A_LEAD) or not is_reasoning(before, lead, context):
        return False
    if not _is_linked(lead, wanted, context) or _is_reversed(lead, wanted, context):
        return False
    if parts[start].glued:
        return False
    stop = clause_end(parts, end)
    rest = parts[stop:]
    stop += contrast(rest, wanted)
    if (
        any(token.text == "would" for token in lead)
        and not any(token.text in ("say", "choose", "answer") for token in lead)
        and end < len(parts)
    ):
        return all(token.is_mark for token in parts[end:])
    beside, rest = parts[end : clause_end(parts, end)], parts[stop:]
    if not _describes(beside, wanted, context) or _shortens_a_name(beside, context):
        return False
    if says_the_opposite([*lead, *beside], context):
        return False
    if _names_another(rest, wanted, context):
        return False
    offered = _offered(context) - set(wanted)
    if any(singular(token.text) in offered for token in parts):
        return False
    topics = frozenset(wanted) | {"it", "they", "he", "she"}
    return is_explanation(rest, Context(context.question, context.topics | topics, context.asked))


def _is_linked(lead: Sequence[Token], wanted: Sequence[str], context: Context) -> bool:
    """Whether the words before the answer hand over to it, and not to a relation that was asked about.

    "The sheep is behind the cow" does not answer "What is behind the sheep?" with the cow.
    """
    listed = set[str]()  # a list of things from the question, "the sheep, the cow", hands over to nothing
    for token in lead:
        if token.text == "," and listed and not listed & (FRAME - ARTICLES):
            return False
        if token.is_word:
            listed.add(singular(token.text))
    words = [token.text for token in lead if token.text not in ARTICLES]
    while words and (
        singular(words[-1]) in ADJECTIVES | {"single", "one"} and singular(words[-1]) not in context.question
    ):
        words.pop()
    if not words or not words[-1][0].isalnum() or words[-1] in LINKS:
        return True
    if _ends_as_asked(words, context):
        return True
    if words[-1] == "of" or (words[-1] == "with" and "go" not in words):
        return False
    if words[-1] in PREPOSITIONS or singular(words[-1]) in context.content:
        is_offered = bool(set(wanted) & _offered(context))
        return words[-1] in PREPOSITIONS and (is_offered or words[-1] not in context.question)
    return words[-1] not in ("all", "well", "as", "by")


def _ends_as_asked(words: Sequence[str], context: Context) -> bool:
    """Whether a lead is the question put as a statement: "the man is holding" where it asks "What is the man holding?"."""
    passed = COPULAS | ARTICLES | INTERROGATIVES | {"he", "she", "he's", "she's", "it", "it's"}
    said = [singular(word) for word in words if word not in passed]
    asked = [word for word in context.asked if word not in passed]
    return (
        bool(said) and asked[-len(said) :] == said and (said[-1] in PREPOSITIONS or said[-1].endswith("ing"))
    )


def _is_turned(beside: Sequence[str], context: Context) -> bool:
    """Whether the question's words change places: "the phone is holding the man" where the man was holding something."""
    asked = context.content - (FRAME - PREPOSITIONS) - {"of", "to", "in", "at"}
    places = [context.asked.index(word) for word in map(singular, beside) if word in asked]
    return places != sorted(places)


def _is_reversed(lead: Sequence[Token], wanted: Sequence[str], context: Context) -> bool:
    """Whether the things a question compares change places: "the bed is right of the lamp" is about the bed."""
    if not set(wanted) & _offered(context):
        return False
    things = [
        word for word in context.asked if word in context.content - FRAME - PREPOSITIONS - _offered(context)
    ]
    said = [word for token in lead if (word := singular(token.text)) in things]
    return len(things) > 1 and bool(said) and said[0] != things[0]


def _offered(context: Context) -> set[str]:
    """The words that a question offers for choice: those beside an "or"."""
    asked = [word for word in context.asked if word not in PREPOSITIONS | ARTICLES]
    return {
        word
        for index, word in enumerate(asked)
        if word != "or" and "or" in asked[max(0, index - 1) : index + 2]
    }


def _describes(beside: Sequence[Token], wanted: Sequence[str], context: Context) -> bool:
    """Whether the words right after the answer repeat the question, frame or describe it."""
    if any(not token.is_word and not token.is_number for token in beside):
        return False
    words = [token.text for token in beside]
    if words[:1] == ["side"] and set(wanted) <= SCENE:
        words = words[1:]
    if not words or is_verdict(words, context):
        return True
    if (
        set(wanted) <= ADJECTIVES
        and len(words) <= 2
        and {singular(word) for word in words} <= context.content
    ):
        return True  # the red car, where its colour was asked for
    if (
        set(wanted) & _offered(context)
        and words[0] in PREPOSITIONS - {"of", "to", "on", "in"} - context.question
    ):
        return False
    if set(words) & (DANGER - {"what"} | {"and", "or"}):
        return False
    known = SEEN | context.content | EMPHASIS | SCENE
    if all(word in known or singular(word) in known for word in words):
        if _is_turned(words, context):
            return False
        if words[0] in COPULAS and ({"a", "an"} & set(words) or words[0] in ("has", "have", "do", "does")):
            return False
        return words[0] in TAIL_STARTS | PREPOSITIONS or singular(words[0]) in EMPHASIS
    if words[0] in COPULAS or words[0] not in TAIL_STARTS or is_doubtful(beside):
        return False
    return words[0] not in context.question and not set(wanted) & context.question


def _shortens_a_name(beside: Sequence[Token], context: Context) -> bool:
    """Whether a thing of the question loses a part of its name: the dog of a hot dog; a tall man may be the man."""
    said = [singular(token.text) for token in beside if token.text not in ARTICLES]
    if not said or said[0] not in TAIL_STARTS:
        return False
    things = context.content - FRAME - PREPOSITIONS - SCENE - TAIL_STARTS
    return any(
        then in said and first not in said and first in things - ADJECTIVES and then in things
        for first, then in pairwise(context.asked)
    )


def _names_another(rest: Sequence[Token], wanted: Sequence[str], context: Context) -> bool:
    """Whether a clause after the answer offers another thing: a bare noun in a list, or one that "and" adds."""
    clause = list[str]()
    for token in [*rest, Token(".", ".", False, 0, 0)]:
        if not token.is_mark:
            clause.append(token.text)
            continue
        if clause and not _is_about(clause, wanted, context):
            return True
        clause = []
    return False


def _is_about(clause: Sequence[str], wanted: Sequence[str], context: Context) -> bool:
    words = [singular(word) for word in clause if word not in ARTICLES]
    if set(words) <= set(wanted) | FRAME | EMPHASIS:
        return not set(words) & set(wanted) or set(words) >= set(wanted)
    if clause[0] in _ADDS:
        return False
    has_verb = bool(
        set(clause)
        & (
            COPULAS
            | {
                "stands",
                "sits",
                "lies",
                "appears",
                "shows",
                "because",
                "as",
                "since",
                "not",
                "which",
                "who",
                "it",
                "that",
            }
        )
    )
    return has_verb or clause[0] in PREPOSITIONS | TAIL_STARTS or clause[0].endswith("ing")
