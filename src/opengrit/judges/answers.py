"""When two short answers are the same: yes/no, numbers, options of a multiple choice, expressions and plain text.

The comparison pays only where the whole answer asserts exactly the expected one: a wrong answer taken for a right one
rewards guessing. So an answer that hedges, denies, refuses, lists several candidates, or merely contains the right one
("hot dog" for "dog", "three hundred" for 3) is not the same. It knows no synonyms ("couch" is not "sofa"); a judge
that reads meaning is a language model. docs/judging-rule.md has the rules as a table.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from opengrit.judges.assertion import (
    Context,
    context_of,
    is_explanation,
    is_framing,
    is_reasoning,
    sentence_start,
)
from opengrit.judges.expressions import canonical, is_expression, same_expression
from opengrit.judges.latex import unlatex
from opengrit.judges.numbers import number_is_said
from opengrit.judges.numerals import TENS, UNITS, read_quantity
from opengrit.judges.options import mentions, names_option, options_of, own_option, stem_of, wanted_letters
from opengrit.judges.phrases import text_is_said
from opengrit.judges.polarity import NO, YES, asks_yes_or_no, polarity
from opengrit.judges.wording import clean, plain, singular, tokens

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_LIST = re.compile(rf"\[\s*+{_NUMBER}(?:\s*+,\s*+{_NUMBER})*+\s*+\]")
_BOX = re.compile(r"[\[(]\s*+" + r"\s*+,\s*+".join([r"-?\d++(?:\.\d++)?+"] * 4) + r"\s*+[\])]")
_OTHER = rf"(?:option\s++)?\(?({'|'.join(UNITS)}|[A-Za-z]|\d++)\b\)?"
_NOT_THE_OTHER = re.compile(
    rf"(?:(?:it|that|the answer)(?:'s|\s++is)\s++)?not\s++{_OTHER}\s*+[,;]?\s*+(?:but|it is|it's)\s++",
    re.IGNORECASE,
)
_THAN_THE_OTHER = re.compile(
    rf"(?:,\s*+not|(?:,|(?<![\s,]))\s++(?:and not|rather than|instead of))\s++{_OTHER}", re.IGNORECASE
)
_ARTICLES = frozenset({"a", "an", "the"})


def normalise(text: str) -> str:
    """The words of a text in one spelling, joined by single spaces.

    Lower case; punctuation, a leading article and markup gone; plurals made singular; number words and numerals
    in one form ("Twenty-one" and "21.0" are both "21"). Signs and operators stay ("2-4" is "2 - 4", "x<1" is not
    "x>1"), and so do articles when nothing else is there.
    """
    parts = [token for token in tokens(clean(text, boxes=True)) if not token.is_mark]
    raw, index = list[str](), 0
    while index < len(parts):
        token = parts[index]
        signed = token.text == "-" and index + 1 < len(parts) and parts[index + 1].is_number
        if signed and (index == 0 or not (parts[index - 1].is_number or parts[index - 1].end == token.start)):
            raw.append("-" + canonical(parts[index + 1].text))
            index += 1
        else:
            raw.append(canonical(token.text) if token.is_number else singular(token.text))
        index += 1
    return " ".join(_with_numerals([word for word in raw if word not in _ARTICLES] or raw))


def _with_numerals(words: list[str]) -> list[str]:
    """The words with "twenty", "one" written 21; hundreds and beyond stay words."""
    out: list[str] = []
    tens = None
    for word in words:
        unit = UNITS.get(word)
        if tens is not None and unit is not None and 1 <= unit <= 9:
            out[-1] = str(tens + unit)
            tens = None
            continue
        tens = TENS.get(word)
        value = unit if tens is None else tens
        out.append(word if value is None else str(value))
    return out


def is_box_answer(expected: str) -> bool:
    """Whether an expected answer is one box of four numbers, as in OVDEval rows: not a matter of words."""
    return _BOX.fullmatch(expected.strip()) is not None


class AnswerKind(Enum):
    """How an expected answer is compared with a given one."""

    BOX = "box"  # by overlap, not by words: OVDEval
    OPTION = "option"  # one of the choices its question lists: most of MathVista
    YES_NO = "yes/no"  # MME, POPE, much of VSR
    NUMBER = "number"  # TallyQA
    LIST = "list"  # several numbers in order: a few rows of MathVista
    TEXT = "text"


def answer_kind(expected: str, question: str | None = None) -> AnswerKind:
    """How an expected answer is compared: as an option if the question lists it, else by its own form."""
    if is_box_answer(expected):
        return AnswerKind.BOX
    if wanted_letters(expected, options_of(question or "")):
        return AnswerKind.OPTION
    bare, kind = _read_alone(expected)
    return kind if _expected_polarity(bare, question) is None else AnswerKind.YES_NO


@lru_cache(maxsize=10_000)
def _read_alone(expected: str) -> tuple[str, AnswerKind]:
    """The bare text of an expected answer, and its kind where it is neither an option nor yes or no."""
    bare = clean(expected, boxes=True)
    if _LIST.fullmatch(bare):
        return bare, AnswerKind.LIST
    return bare, AnswerKind.TEXT if read_quantity(unlatex(bare)) is None else AnswerKind.NUMBER


def said_yes_or_no(given: str) -> str | None:
    """ "yes" or "no" as an answer says it, or None where it says neither or both."""
    return polarity(clean(given), Context())


def same_answer(expected: str, given: str, question: str | None = None) -> bool:
    """Whether the given answer says what the expected one says, and nothing that takes it back.

    The kind of the expected answer decides: an option of the choices listed in the question (by letter or by text),
    yes/no, a number, a list of numbers, an expression, or text. An explanation that a mark sets off from the answer is
    allowed; a second candidate, doubt or denial is not. Never raises for a given answer, whatever the text; linear in
    its length. Raises ValueError for an expected box, which no comparison of words can judge: measure it by overlap instead.
    """
    if is_box_answer(expected):
        raise ValueError(f"an expected box is compared by overlap and not by words, got {expected!r}")
    bare = clean(expected, boxes=True)
    if _LIST.fullmatch(bare) and not wanted_letters(expected, options_of(question or "")):
        return _list_is_said(bare, clean(given, boxes=True), question)
    said = _THAN_THE_OTHER.sub(r", not \1", clean(given))
    if (denied := _NOT_THE_OTHER.match(said)) is not None and canonical(denied[1]) != canonical(bare):
        said = said[denied.end() :]
    if not any(token.is_word or token.is_number for token in tokens(said)):
        return said.casefold() == expected.strip().casefold() != ""
    choices = options_of(question or "")
    if not choices and (own := own_option(expected)):
        given_option = own_option(said)
        if any(_is_another(given_option.get(letter, text), text) for letter, text in own.items()):
            return False
        choices = given_option | own
    context = context_of(tokens(clean(question or "", boxes=True)))
    wanted = wanted_letters(expected, choices)
    if wanted:
        stem = context_of(tokens(clean(stem_of(question or ""), boxes=True)))
        return _option_is_said(wanted, said, choices, context, stem)
    polar = _expected_polarity(bare, question)
    if polar is not None:
        return polarity(said, context) == polar
    return _value_is_said(bare, said, context)


def _is_another(said: str, option: str) -> bool:
    """Whether a letter comes with a text that is not its own: "(C) blue" for "(C) red"; "(C) is correct" has none."""
    return canonical(option) not in canonical(said) and "is" not in said.split()


def _option_is_said(
    wanted: set[str], said: str, choices: dict[str, str], context: Context, stem: Context
) -> bool:
    topics = {
        singular(token.text) for text in choices.values() for token in tokens(plain(text)) if token.is_word
    }
    around = Context(context.question, frozenset(topics), context.asked)
    by_letter = names_option(said, wanted, choices, around)
    if by_letter is not None:
        return by_letter
    option = clean(choices[min(wanted)], boxes=True)
    polar = _expected_polarity(option, None)
    if polar is not None and option.lower() == polar:
        return polarity(said, stem) == polar
    named = mentions(tokens(said), choices)
    if named - wanted and not (read_quantity(unlatex(option)) is not None):
        return False
    return _value_is_said(option, said, _without_options(context, topics))


def _without_options(context: Context, topics: set[str]) -> Context:
    return Context(context.question - topics, context.topics, context.asked)


def _expected_polarity(bare: str, question: str | None) -> str | None:
    """ "yes" or "no" where that is what is expected; true and false count where the question can be answered so."""
    word = bare.strip(" .!").lower()
    if word in ("yes", "no"):
        return word
    if word in ("true", "false") and (question is None or asks_yes_or_no(question)):
        return "yes" if word in YES else "no" if word in NO else None
    return None


def _value_is_said(bare: str, said: str, context: Context) -> bool:
    """Whether a number, an expression or a text is said."""
    if canonical(bare) == canonical(said) != "":
        return True
    wanted = read_quantity(unlatex(bare))
    if wanted is not None:
        return number_is_said(wanted, unlatex(said), context)
    if is_expression(bare):
        return same_expression(bare, said, context)
    return text_is_said(bare, said, context)


def _list_is_said(bare: str, said: str, question: str | None) -> bool:
    """Whether the numbers of a list are given in its order: in brackets, or as the only numbers of a framed answer."""
    lists = list(_LIST.finditer(said))
    start, end = lists[-1].span() if lists else (0, len(said))
    if len(lists) > 1 or _numbers(said[start:end]) != _numbers(bare):
        return False
    context = context_of(tokens(clean(question or "", boxes=True)))
    words = [token for token in tokens(said[start:end]) if token.is_word and token.text != "and"]
    lead = tokens(said[:start])
    begin = sentence_start(lead, len(lead))
    if not is_framing([*lead[begin:], *words], context) or not is_reasoning(
        lead[:begin], lead[begin:], context
    ):
        return False
    return is_explanation(tokens(said[end:]), context)


def _numbers(text: str) -> list[str]:
    """The numbers of a text, in order, each with its sign."""
    parts = tokens(text)
    return [
        ("-" if at and parts[at - 1].text == "-" else "") + canonical(token.text)
        for at, token in enumerate(parts)
        if token.is_number
    ]
