"""Multiple choice: the options that a question lists, and the one that an answer commits to, by letter, by text or by both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from opengrit.judges.assertion import (
    ARTICLES,
    CONCLUDES,
    COPULAS,
    EMPHASIS,
    FRAME,
    PREPOSITIONS,
    Context,
    clause_end,
    contrast,
    is_explanation,
    is_framing,
    is_reasoning,
    is_verdict,
    sentence_start,
)
from opengrit.judges.expressions import canonical
from opengrit.judges.latex import unlatex
from opengrit.judges.numerals import read_quantity
from opengrit.judges.wording import Token, clean, plain, singular, tokens

# At the start of a line, or anywhere: "(A) cat", "A. cat", "A) cat", "A: cat", "A, cat" (of a Chinese comma), "[A] cat".
_IN_BRACKETS = re.compile(r"[(\[]([A-Za-z])[)\]][ \t]*+[.:]?+[ \t]*+")
_AT_A_LINE = re.compile(r"(?m)^[ \t]*+(?:[-*][ \t]++)?+(?:\*\*)?+([A-Za-z])(?:\*\*)?+[.):,][ \t]*+(?:\*\*)?+")
_IN_A_LINE = re.compile(r"(?<![\w(.])([A-Za-z])[.):,](?=[ \t]*+[^\s.])[ \t]*+")
_LEADING_LETTER = re.compile(r"\W*+([A-Za-z])(?![\w'])[\s).:,\]\-]*+(.*+)", re.DOTALL)
# "A. Lincoln" is a name, and "B. dog" an option.
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-H])\)|([A-H])(?:\)|[.:](?=\s++[a-z\d])))\s++(\S.*+)")
_MOST_OPTIONS = 26
_LONGEST_LEAD = 12
# What a question on one line may ask for after its last option: "D. sofa. Answer with the letter."
_INSTRUCTION = re.compile(
    r"(?:(?<![\s.?!])\s++please|[.?!]\s++(?:please|answer|choose|select|respond|reply|output|give|provide|pick))\b.*+",
    re.IGNORECASE,
)
_SPACES = re.compile(r"(?<!\d)\s++|\s++(?!\d)")


def options_of(question: str) -> dict[str, str]:
    """The options a question lists, letter to text, in order from A; at least two, else none."""
    return _options_and_stem(question)[0]


def stem_of(question: str) -> str:
    """What a question asks, without the options that it lists."""
    return _options_and_stem(question)[1]


@lru_cache(maxsize=64)
def _options_and_stem(question: str) -> tuple[dict[str, str], str]:
    question = plain(question)
    for marker in (_IN_BRACKETS, _AT_A_LINE, _IN_A_LINE):
        found, start = _run_of_letters(question, list(marker.finditer(question)))
        if len(found) >= 2:
            return found, question[:start]
    return {}, question


def own_option(expected: str) -> dict[str, str]:
    """The option that an expected answer spells by letter and text, "(B) dog" or "B. dog", where its question lists none."""
    found = _LETTER_AND_TEXT.fullmatch(plain(expected).strip())
    return {} if found is None else {found[1] or found[2]: found[3]}


def _run_of_letters(question: str, marks: Sequence[re.Match[str]]) -> tuple[dict[str, str], int]:
    """The texts after the marks A, B, C and so on, of the last such run, and where it begins."""
    starts = [index for index, mark in enumerate(marks) if mark[1] in "Aa"]
    for start in reversed(starts[-3:]):
        run = list[re.Match[str]]()
        for mark in marks[start:]:
            if mark[1] == chr(ord(marks[start][1]) + len(run)) and len(run) < _MOST_OPTIONS:
                run.append(mark)
        ends = [mark.start() for mark in run[1:]] + [len(question)]
        texts = {
            mark[1].upper(): (question[mark.end() : end].splitlines() or [""])[0].strip(" \t,;|/")
            for mark, end in zip(run, ends, strict=True)
        }
        if len(texts) >= 2 and all(texts.values()):
            last = max(texts)
            texts[last] = _INSTRUCTION.sub("", texts[last]) or texts[last]
            return texts, run[0].start()
    return {}, 0


def wanted_letters(expected: str, choices: Mapping[str, str]) -> set[str]:
    """The letters of the expected option: none if the question lists no such option, two if it lists it twice.

    An expected answer is a letter, an option's text, or a letter with its text.
    """
    if not choices:
        return set()
    said = clean(expected, boxes=True)
    exact = _letters_of_text(said, choices)
    if exact:
        return exact
    leading = _LEADING_LETTER.fullmatch(said)
    if leading is None or leading[1].upper() not in choices:
        return set()
    letter, rest = leading[1].upper(), leading[2].strip()
    if not rest.strip(" .)") or letter in _letters_of_text(rest, choices):
        return {letter}
    return set()


def _letters_of_text(text: str, choices: Mapping[str, str]) -> set[str]:
    """The options whose text is this text: exactly, else but for case, articles and plurals."""
    exact = _letters_of_exact_text(text, choices)
    if exact or not text.strip():
        return exact
    if (quantity := read_quantity(unlatex(text))) is not None:
        return {letter for letter, option in choices.items() if _quantity_of(option) == quantity[:2]}
    wanted = canonical(text)
    return {letter for letter, option in choices.items() if wanted and _canonical_option(option) == wanted}


@lru_cache(maxsize=512)
def _canonical_option(option: str) -> str:
    return canonical(clean(option, boxes=True))


@lru_cache(maxsize=512)
def _quantity_of(option: str) -> tuple[Fraction, str] | None:
    found = read_quantity(unlatex(clean(option, boxes=True)))
    return None if found is None else (found.value, found.unit)


@lru_cache(maxsize=512)
def _words_of(option: str, *, marks: bool = True) -> list[str]:
    return [singular(token.text) for token in tokens(clean(option, boxes=True)) if marks or not token.is_mark]


def _letters_of_exact_text(text: str, choices: Mapping[str, str]) -> set[str]:
    bare = _SPACES.sub("", text)  # 1 2 is not 12
    return {letter for letter, option in choices.items() if bare and _SPACES.sub("", plain(option)) == bare}


def names_option(said: str, wanted: set[str], choices: Mapping[str, str], context: Context) -> bool | None:
    """Whether an answer commits to a wanted option by its letter; None where it names none by letter."""
    parts = tokens(said)
    exact = _letters_of_exact_text(said.rstrip(" .!"), choices)
    if exact:
        return exact <= wanted
    if (
        all(not token.is_word or len(token.text) == 1 for token in parts)
        and len([t for t in parts if t.is_word]) == 1
    ):
        letter = next(token.raw.upper() for token in parts if token.is_word)
        if letter in choices and all(
            token.text in "().:[]{},\n" or (token.text == "!" and at)
            for at, token in enumerate(parts)
            if not token.is_word
        ):
            return letter in wanted
    alike = _letters_of_text(said.rstrip(" .!"), choices)
    if alike:
        return alike <= wanted
    framed = _letters_of_framed_text(said, parts, choices, context)
    if framed:
        return framed <= wanted
    places = [index for index in range(len(parts)) if _is_letter(parts, index, choices)]
    if not places:
        return None
    for place in dict.fromkeys((places[0], places[-1])):
        if parts[place].raw.upper() in wanted and _commits(said, parts, place, choices, context):
            return True
    return False


def _letters_of_framed_text(
    said: str, parts: Sequence[Token], choices: Mapping[str, str], context: Context
) -> set[str]:
    """The options whose text is all that follows framing: "The answer is sample A." names no option A."""
    for index in range(1, min(len(parts), _LONGEST_LEAD)):
        if not is_framing(parts[:index], context) or _is_letter(parts, index - 1, choices):
            break
        rest = said[parts[index].start :].rstrip(" .!")
        letters = _letters_of_exact_text(rest, choices)
        if not letters and sum(token.is_word or token.is_number for token in parts[index:]) > 1:
            letters = _letters_of_text(rest, choices)
        if letters:
            concludes = any(token.text in CONCLUDES or token.text == "=" for token in parts[:index])
            return letters if concludes or not mentions(parts[:index], choices) - letters else set()
    return set()


def _is_letter(parts: Sequence[Token], index: int, choices: Mapping[str, str]) -> bool:
    """Whether a token names an option: a capital of the list that is not the article or the pronoun."""
    token = parts[index]
    if len(token.raw) != 1 or token.raw.upper() not in choices or not token.is_word:
        return False
    before = parts[index - 1].text if index else ""
    after = parts[index + 1].text if index + 1 < len(parts) else "\n"
    if token.glued or (index + 1 < len(parts) and parts[index + 1].glued and parts[index + 1].is_number):
        return False
    if token.raw.islower():
        if (
            before == "is"
            and parts[index - 2].text in ("answer", "option", "choice")
            and index + 1 >= len(parts) - 1
        ):
            return True
        if before in ("option", "choice", "letter", ":") and (after in ".\n!" or index + 1 == len(parts)):
            return before != ":" or (index > 1 and parts[index - 2].text in ("answer", "option", "choice"))
        if index == 0 and after in ").:,":
            return True
        return before in "([" and before != "" and after in ")]"
    if (
        token.raw in "AI"
        and after[0].isalpha()
        and after not in ("is", "because", "since", "as", "or", "and")
    ):
        return before in ("option", "choice", "answer", "letter")
    return True


def _commits(
    said: str, parts: Sequence[Token], place: int, choices: Mapping[str, str], context: Context
) -> bool:
    letter = parts[place].raw.upper()
    start = sentence_start(parts, place)
    if not is_framing(parts[start:place], context, extra=("answer", "option", "choice", "letter")):
        return False
    if not is_reasoning(parts[:start], parts[start:place], context):
        return False
    named_before = {parts[i].raw.upper() for i in range(place) if _is_letter(parts, i, choices)}
    if mentions(parts[start:place], choices) - {letter}:
        return False
    if named_before - {letter} and not any(token.text in CONCLUDES for token in parts[start:place]):
        return False
    if parts[start:place] and parts[place - 1].text in ("after", "before", "to", "at", "of", "in", "by"):
        return False
    if (before := mentions(parts[:start], choices)) and letter not in before:
        return False
    rest = place + 1
    while rest < len(parts) and parts[rest].text in ")]}":
        rest += 1
    is_set_off = rest > place + 1
    here = _text_after(said, parts, rest, choices)
    if here is not None:
        letters, rest = here
        if letter not in letters:
            return False
    end = rest if is_set_off and here is None else clause_end(parts, rest)
    beside = [singular(token.text) for token in parts[rest:end]]
    if any(not token.is_word for token in parts[rest:end]):
        return False
    words = [token.text for token in parts[rest:end]]
    repeats = (
        words[:1] in (["is"], ["are"])
        and all(
            word in context.content - FRAME or word in COPULAS | PREPOSITIONS | ARTICLES for word in beside
        )
        and not mentions(parts[rest:end], choices)
    )
    if not (repeats or is_verdict(words, context) or all(word in EMPHASIS for word in beside)) or any(
        len(token.raw) == 1 and token.raw.upper() in choices and not (token.raw == "a" and beside[-1] != "a")
        for token in parts[rest:end]
    ):
        return False
    end += contrast(parts[end:], {letter.lower()})
    after = parts[end:]
    if any(
        _is_letter(parts, index, choices) and parts[index].raw.upper() != letter
        for index in range(end, len(parts))
    ):
        return False
    topics = (
        context.topics | {letter.lower()} | frozenset({"option", "choice", "answer", "only", "match", "show"})
    )
    return is_explanation(
        after, Context(context.question, topics, context.asked)
    ) and not _opens_with_another(said, after, choices, letter)


def _text_after(
    said: str, parts: Sequence[Token], index: int, choices: Mapping[str, str]
) -> tuple[set[str], int] | None:
    """The options whose text follows a letter up to the end of a line, a sentence or a clause, and where it ends."""
    while index < len(parts) and parts[index].text in ".:,-\u2014=\n":
        index += 1
    found = _text_at(said, parts, index, choices)
    opened = index < len(parts) and parts[index].text in "(["
    return _text_at(said, parts, index + 1, choices) if found is None and opened else found


def _text_at(
    said: str, parts: Sequence[Token], index: int, choices: Mapping[str, str]
) -> tuple[set[str], int] | None:
    if index >= len(parts):
        return None
    begin = parts[index].start
    spelled = _options_at(parts, index, choices)
    if spelled is not None and spelled[1] < len(parts) and not parts[spelled[1]].is_mark:
        return spelled
    ends = [at for at in range(index + 1, min(len(parts), index + 60)) if parts[at].is_mark][:8]
    for at in [len(parts), *reversed(ends)] if len(parts) < index + 60 else list(reversed(ends)):
        stop = parts[at].start if at < len(parts) else len(said)
        letters = _letters_of_text(said[begin:stop].rstrip(" .!"), choices)
        if letters:
            return letters, at
    return None


def _options_at(
    parts: Sequence[Token], index: int, choices: Mapping[str, str]
) -> tuple[set[str], int] | None:
    """The options whose words stand at a place, the longest text only, and where it ends."""
    found = dict[int, set[str]]()
    for letter, option in choices.items():
        text = _words_of(option)
        if text and [singular(token.text) for token in parts[index : index + len(text)]] == text:
            found.setdefault(index + len(text), set()).add(letter)
    end = max(found, default=0)
    return (found[end], end) if found else None


def _opens_with_another(said: str, after: Sequence[Token], choices: Mapping[str, str], letter: str) -> bool:
    """Whether an explanation is nothing but another option's text: "B. cat" where A is the cat."""
    words = [singular(token.text) for token in after if token.is_word or token.is_number]
    while words[:1] and words[0] in ("the", "a", "an", "because", "since", "as", "so"):
        words = words[1:]
    others = [option for other, option in choices.items() if other != letter]
    texts = [_words_of(option, marks=False) for option in others]
    here = _words_of(choices[letter], marks=False)
    if (
        here
        and words[: len(here)] == here
        and not any(len(text) > len(here) and words[: len(text)] == text for text in texts)
    ):
        return False
    return any(text and words[: len(text)] == text for text in texts)


def mentions(parts: Sequence[Token], choices: Mapping[str, str]) -> set[str]:
    """The options whose words occur among tokens; one inside a longer one that occurs does not count."""
    words = [singular(token.text) for token in parts if not token.is_mark]
    spans = dict[str, tuple[int, int]]()
    for letter, option in choices.items():
        text = _words_of(option, marks=False)
        if text and (start := _find(text, words)) is not None:
            spans[letter] = (start, start + len(text))
    return {
        letter
        for letter, (start, end) in spans.items()
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b in spans.values())
    }


def _find(part: Sequence[str], whole: Sequence[str]) -> int | None:
    if not part:
        return None
    for start, word in enumerate(whole):
        if word == part[0] and whole[start : start + len(part)] == part:
            return start
    return None
