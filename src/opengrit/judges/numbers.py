"""Whether an answer gives a number: one number, with nothing beside it that changes or doubts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from opengrit.judges.assertion import (
    ADJECTIVES,
    ARTICLES,
    COPULAS,
    DANGER,
    DENIALS,
    EMPHASIS,
    FRAME,
    GENERIC,
    LINKS,
    PICTURES,
    SCENE,
    SEEN,
    TAIL_STARTS,
    Context,
    clause_end,
    contrast,
    is_doubtful,
    is_elsewhere,
    is_explanation,
    is_framing,
    is_reasoning,
    is_verdict,
    says_the_opposite,
    sentence_start,
    word_set,
)
from opengrit.judges.numerals import PARTS, SCALES, TENS, UNIT, UNITS, Quantity, quantities, quantity_at
from opengrit.judges.wording import Token, singular, tokens

_WORDS_OF_UNIT = {
    "%": word_set("% percent percentage share proportion rate pct"),
    "\u00b0": word_set("degree angle \u00b0 \u2220 measure degrees"),
    "$": word_set("$ dollar cost price money pay spend spent much usd"),
}
_FALSE_NOUNS = word_set(
    "idea answer way doubt clue information info problem reason need chance matter question comment evidence image picture photo response data "
    "result option choice means point guarantee certainty consensus thank thanks sign parking smoking entry exit one such longer more less"
)
_ANSWERS = word_set("option answer choice above following given result")
_NOTHING = word_set("none nil")
_SUMS = word_set("total count sum number value answer result")
_MOST_UNKNOWN_WORDS = 3
_ARGUMENT = re.compile(r"(?<=[a-z])\(\d++\)")
_CHANGES_A_NUMBER = DANGER | set(UNITS) | set(TENS) | set(PARTS) | set(SCALES)


def number_is_said(wanted: Quantity, said: str, context: Context) -> bool:
    """Whether an answer asserts this number, in figures or in words, and no other."""
    parts = tokens(said)
    found = quantities(parts)
    if wanted.value == 0 and _is_none(parts, context):
        return True
    if not found:
        return False
    last = _last_equation(parts)
    places = [found[0], found[-1]] if last is None else [one for one in found if one[0] > last][-1:]
    if context.asked and len(found) > 1:
        places += [one for one in found[:8] if _counts_the_asked(parts, one, context)][:1]
    return any(
        _is_asserted(wanted, parts, start, quantity, context) for start, quantity in dict(places).items()
    )


def _last_equation(parts: Sequence[Token]) -> int | None:
    return max((index for index, token in enumerate(parts) if token.text == "="), default=None)


def _is_asserted(
    wanted: Quantity, parts: Sequence[Token], start: int, found: Quantity, context: Context
) -> bool:
    follows = found.end < len(parts) and parts[found.end].is_word
    if follows and not found.unit and "percentage" in context.question:
        return False
    if found.value != wanted.value or not _units_agree(wanted.unit, found.unit, context):
        return False
    if _is_factorial(parts, found.end) and "many" not in context.question:
        return False
    begin = sentence_start(parts, start)
    lead = _behind_equation(parts[begin:start], context)
    if (
        not is_framing(lead, context, extra=_nouns_of_counting(context))
        or _is_a_part(lead)
        or not (len(lead) < start - begin or _is_handed_over(lead, wanted, context))
    ):
        return False
    if not is_reasoning(parts[:begin], parts[begin:start], context):
        return False
    if len(lead) < start - begin and lead and lead[-1].is_word and len(lead[-1].raw) == 1:
        return False  # x = 7 where y was asked for
    end = clause_end(parts, found.end)
    beside = _without_other_things(parts[found.end : end], context)
    if not _is_counted(beside, context) or says_the_opposite(parts[begin:end], context):
        return False
    rest = parts[end:]
    rest = rest[contrast(rest, {parts[start].text}) :]
    if _is_a_portion(rest, context):
        return False
    if not any(token.is_word for token in rest):
        return all(token.is_mark or token.is_number or token.text in "+=" for token in rest) and (
            not any(token.text == "?" for token in rest) and _numbers_agree(wanted.value, rest)
        )
    return is_explanation(rest, _with_counting(context, beside)) and _numbers_agree(wanted.value, rest)


def _is_factorial(parts: Sequence[Token], end: int) -> bool:
    """Whether a "!" touches the figures before it, as in 7!, which says how many only where that is asked."""
    return end < len(parts) and parts[end].text == "!" and parts[end].glued and parts[end - 1].is_number


def _without_other_things(beside: Sequence[Token], context: Context) -> Sequence[Token]:
    """The words after a number without "and 1 cat", where the question asks for the dogs of "2 dogs and 1 cat"."""
    words = [singular(token.text) for token in beside]
    asks = context.asked[:2] == ("how", "many") and words[:2] == [*context.asked[2:3], "and"]
    if not asks or words[0] in words[2:] or quantity_at(beside, 2) is None or is_doubtful(beside):
        return beside
    other = beside[3:]
    return (
        beside
        if not other or any(token.text in DANGER or not token.is_word for token in other)
        else beside[:1]
    )


def _nouns_of_counting(context: Context) -> frozenset[str]:
    names = {word for word in context.question if len(word) == 1 and word.isascii()}
    return word_set(" ".join(names)) | word_set("only single number count total sum yes year")


def _with_counting(context: Context, beside: Sequence[Token]) -> Context:
    topics = {singular(token.text) for token in beside if token.is_word} | set(UNITS) | {"number", "count"}
    return Context(context.question, context.topics | topics, context.asked)


def _behind_equation(lead: Sequence[Token], context: Context) -> Sequence[Token]:
    """What precedes a number, without the expression whose value it is: "2 + 3 =", "x =", "angle ABC ="."""
    places = [index for index, token in enumerate(lead) if token.text == "="]
    if not places:
        return lead
    end = places[-1]
    while end and (
        lead[end - 1].is_number
        or lead[end - 1].text in "+-*/^=()\u221a\u2220\u03c0\u2014"
        or lead[end - 1].text in SCENE | FRAME
        or _is_variable(lead[end - 1], context)
    ):
        end -= 1
    if _is_within_terms(lead[end : places[-1]]):
        return lead  # 2x = 12 gives no x
    return [*lead[:end], *lead[places[-1] + 1 :]]


def _is_within_terms(left: Sequence[Token]) -> bool:
    """Whether a variable occurs before "=" in terms only, and never alone on a side: 2x, x - 1; y and y(3) are alone."""
    spelled = "".join(
        token.text
        for token in left
        if token.is_number or token.text in "+-*/^=()\u221a\u2014" or len(token.raw) == 1
    )
    sides = [side for side in _ARGUMENT.sub("", spelled).split("=") if any(map(str.isalpha, side))]
    return bool(sides) and all(len(side) > 1 for side in sides)


def _is_variable(name: Token, context: Context) -> bool:
    """Whether a name before "=" is one the question uses, or any short one where no question is known."""
    asked = context.asked
    for start in range(len(asked) - 2):  # the value of y
        if asked[start : start + 2] == ("value", "of") and len(asked[start + 2]) == 1:
            return name.text == asked[start + 2]
    return name.is_word and (name.text in context.question or (not context.is_known and len(name.raw) <= 3))


_BEFORE_A_NUMBER = LINKS | word_set(
    "the exactly just only in of answer total sum count here so therefore thus hence altogether overall all clearly definitely single "
    "visible shown result solution ans say equal get obtain yes conclude picture image there"
)
_NOT_BEFORE = word_set("step question option picture image photo letter choice number figure")


def _is_handed_over(lead: Sequence[Token], wanted: Quantity, context: Context) -> bool:
    """Whether the word right before a number hands over to it: "I count 3", not "I can count to 3" or "step 3"."""
    before = lead[-1] if lead else None
    if before is None or not before.is_word:
        return True
    if before.text.endswith("ing") and before.text in context.content:
        return True  # the man is holding 2 umbrellas
    if before.text == "year":
        return 1000 <= wanted.value < 3000
    return (
        bool({before.text, singular(before.text)} & (_BEFORE_A_NUMBER - _NOT_BEFORE))
        or singular(before.text) in ADJECTIVES
    )


def _is_a_part(lead: Sequence[Token]) -> bool:
    """Whether a number is one of a group or of a name: "of the 2", "number of the 2"."""
    words = [token.text for token in lead if not token.is_mark]
    while words and words[-1] in ARTICLES:
        words.pop()
    return words[-1:] == ["of"] and words[-2:-1] not in ([name] for name in _SUMS)


def _units_agree(wanted: str, found: str, context: Context) -> bool:
    if wanted == found:
        return True
    if wanted and found:
        return False
    unit = wanted or found
    named = {name for word in context.question if (name := UNIT.get(word)) is not None}
    return (
        unit in named
        or bool(_WORDS_OF_UNIT.get(unit, frozenset()) & context.question)
        or (not found and unit == "\u00b0")
    )


def _is_counted(beside: Sequence[Token], context: Context) -> bool:
    """Whether the words right after a number say what is counted and where, and nothing that changes it."""
    if any(not token.is_word for token in beside):
        return False
    words = [token.text for token in beside]
    plain = [singular(word) for word in words]
    if plain[:1] == ["person"] and _is_asked_verb(plain[1:2], context):
        words, plain = words[1:], plain[1:]  # 3 people wear hats
    described = ADJECTIVES if not ADJECTIVES & context.question else frozenset()
    allowed = (context.content | GENERIC | described) - PICTURES
    index, unknown = 0, 0
    while index < len(words):
        if words[index] in TAIL_STARTS:
            break
        if plain[index] not in allowed:
            if (
                context.is_known
                or {words[index], plain[index]} & _CHANGES_A_NUMBER
                or unknown == _MOST_UNKNOWN_WORDS
                or words[index] in UNIT
                or words[index] == "and"
            ):
                break
            unknown += 1
        index += 1
    tail = words[index:]
    if index and tail[:1] and tail[0] in COPULAS and tail[1:2] and tail[1] in TAIL_STARTS & SCENE:
        tail = tail[1:]  # two dogs are lying on the grass
    if words[-1:] == ["short"] or (tail[:1] == ["left"] and tail[1:2] not in (["of"], ["side"])):
        return False  # 2 dogs left
    if not _is_of_the_asked(plain[:index], context) or is_elsewhere(tail, context):
        return False
    if not tail or is_verdict(tail, context):
        return True
    known = SEEN | SCENE | EMPHASIS | context.content
    if all(word in known or singular(word) in known for word in tail) and not set(tail) & (
        DANGER - {"other"}
    ):
        return (
            tail[0] in TAIL_STARTS
            and "and" not in tail
            and not (tail[0] in COPULAS and {"a", "an"} & set(tail))
        )
    if (
        index == 0
        or tail[0] in context.question - SEEN
        or not (tail[0] in TAIL_STARTS - COPULAS or tail[0].endswith("ing"))
    ):
        return False
    return not (set(tail) & DANGER or "and" in tail or is_doubtful(beside) or _has_number(tail))


def _is_asked_verb(following: Sequence[str], context: Context) -> bool:
    """Whether a word is the verb of "How many wear hats?": wear, wears, wearing."""
    return (
        context.asked[:2] == ("how", "many")
        and bool(following)
        and following[0].startswith(context.asked[2:3] or ("?",))
    )


def _is_of_the_asked(nouns: Sequence[str], context: Context) -> bool:
    """Whether the words after a number name what "How many ..." asks for: the people of "people wearing hats"."""
    if context.asked[:2] != ("how", "many"):
        return True
    phrase = set[str]()
    for word in context.asked[2:]:
        if word in TAIL_STARTS or word in ("doe", "could"):
            break
        phrase.add(word)
    named = set(nouns) - GENERIC - ADJECTIVES
    return not (named and phrase) or bool(named & phrase)


def _has_number(words: Sequence[str]) -> bool:
    return any(word in UNITS and word != "one" for word in words)


def _counts_the_asked(parts: Sequence[Token], found: tuple[int, Quantity], context: Context) -> bool:
    """Whether a number stands before the noun that a question "How many ..." asks for."""
    asked = context.asked
    if asked[:2] != ("how", "many") or len(asked) < 3:
        return False
    following = parts[found[1].end] if found[1].end < len(parts) else None
    return following is not None and singular(following.text) == asked[2]


def _numbers_agree(value: Fraction, rest: Sequence[Token]) -> bool:
    """Whether the numbers of an explanation repeat the answer, or count its parts so that they add up to it."""
    if _is_sum(rest):
        numbers = [
            Fraction(token.text)
            for token in rest
            if token.is_number and len(token.text) < 9 and token.text.isascii() and token.text[0] != "."
        ]
        parts_of_it = [number for number in numbers if number != value]
        return sum(parts_of_it) == value and len(numbers) == sum(token.is_number for token in rest)
    found = quantities(rest)
    values = [quantity.value for _, quantity in found]
    if any(token.is_number for token in rest) and not found:
        return False
    if all(one == value for one in values):
        return True
    bare = [
        start
        for start, quantity in found
        if (
            quantity.end >= len(rest)
            or not rest[quantity.end].is_word
            or rest[quantity.end].text in ("and", "or")
        )
        and not (rest[start].text == "one" and start and rest[start - 1].text in ADJECTIVES)
    ]
    if bare:
        return False
    if all(
        rest[one.end : one.end + 1] and rest[one.end].text == "of" and one.value <= value for _, one in found
    ):
        return True
    if all(rest[start].text == "one" for start, _ in found):
        return len(found) <= value
    if values and values[-1] == value and sum(values[:-1]) == value:
        return True
    return sum(values) + sum(token.text == "another" for token in rest) == value


_PORTIONS = set(UNITS) | word_set("half some few")


def _is_a_portion(rest: Sequence[Token], context: Context) -> bool:
    """Whether an explanation says that only a part is what was asked for: "6 cars, half of them parked"."""
    words = [token.text for token in rest if not token.is_mark]
    return any(
        (words[at - 1] in _PORTIONS or words[at - 1].isdigit())
        and words[at + 1 : at + 2] in (["them"], ["these"], ["those"], ["which"])
        and singular(words[-1]) in context.content - FRAME - SCENE
        for at in range(1, len(words))
        if words[at] == "of"
    )


def _is_sum(rest: Sequence[Token]) -> bool:
    return any(token.text in "+=" for token in rest)


def _is_none(parts: Sequence[Token], context: Context) -> bool:
    """Whether an answer says that the counted thing is absent: "none", "no dogs", "there aren't any dogs"."""
    parts = _shortened(parts)
    if len(parts) == 1 and parts[0].text == "nothing":
        return True
    place = next((i for i, token in enumerate(parts) if token.text in _NOTHING or token.text == "no"), None)
    any_at = next((i for i, token in enumerate(parts) if token.text == "any"), None)
    if any_at is not None and place is None:
        return _is_not_any(parts, any_at, context)
    if place is None:
        return False
    begin = sentence_start(parts, place)
    if "have" in [token.text for token in parts[begin:place]]:
        return False
    if not is_framing(parts[begin:place], context) or not is_reasoning(
        parts[:begin], parts[begin:place], context
    ):
        return False
    end = clause_end(parts, place + 1)
    beside = parts[place + 1 : end]
    if any(not token.is_word for token in beside) or is_doubtful(beside):
        return False
    words = [singular(token.text) for token in beside]
    if parts[place].text == "no" and not _names_a_thing(words, context):
        return False
    if not _is_counted(beside, context) or set(words) & (DANGER | _ANSWERS):
        return False
    if not set(words) <= (context.content - {"count"}) | GENERIC | SEEN and context.is_known:
        return False
    rest = parts[end:]
    return is_explanation(rest, _with_counting(context, beside)) and not (quantities(rest) or _refuses(rest))


def _refuses(rest: Sequence[Token]) -> bool:
    """Whether none is seen for want of a picture: "because the image did not load"."""
    words = {token.text for token in rest}
    return bool(words & {"because", "since"} and words & DENIALS and words & PICTURES)


def _shortened(parts: Sequence[Token]) -> Sequence[Token]:
    """ "not a single one" is none, and "not a single dog" no dog."""
    words = [token.text for token in parts]
    for start in range(len(words) - 2):
        if words[start : start + 3] == ["not", "a", "single"]:
            one = words[start + 3 : start + 4] == ["one"]
            none = parts[start]._replace(text="none" if one else "no")
            return [*parts[:start], none, *parts[start + 3 + one :]]
    return parts


def _names_a_thing(words: Sequence[str], context: Context) -> bool:
    """Whether the words after "no" name what is counted and not an answer, an idea or a way to tell."""
    noun = next((word for word in words if word not in ADJECTIVES and word != "visible"), "")
    if context.is_known:
        return noun in (context.content | GENERIC) - FRAME - {"one", "whole"}
    return bool(noun) and noun not in _FALSE_NOUNS and noun not in DANGER | FRAME


def _is_not_any(parts: Sequence[Token], place: int, context: Context) -> bool:
    """There aren't any dogs; I do not see any; there are not any dogs in the picture."""
    begin = sentence_start(parts, place)
    lead = [token for token in parts[begin:place] if not token.is_mark]
    denied = [
        token
        for token in lead
        if token.text in ("not", "aren't", "isn't", "don't", "can't", "cannot", "doesn't")
    ]
    seen = [token for token in lead if token not in denied]
    if len(denied) != 1 or begin or not is_framing(seen, context, extra=("do", "does")):
        return False
    end = clause_end(parts, place + 1)
    words = [singular(token.text) for token in parts[place + 1 : end]]
    if words and not _names_a_thing(words, context):
        return False
    rest = parts[end:]
    return (
        _is_counted(parts[place + 1 : end], context) and is_explanation(rest, context) and not _refuses(rest)
    )
