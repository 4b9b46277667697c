"""When two short answers are the same: yes/no, numbers, options of a multiple choice, and plain text.

The comparison is strict where it must choose: a wrong answer taken for a right one rewards guessing, so an answer
that names several candidates, that denies the right one, or that merely contains it ("hot dog" for "dog") is not
the same. It knows no synonyms ("couch" is not "sofa"); a judge that reads meaning is a language model.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from enum import Enum


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARTICLES = _word_set("a an the")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_UNITS = {word: value for value, word in enumerate(_SMALL.split())}
_DECADES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_DECADES.split(), start=2)}
_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "leaves": "leaf", "shelves": "shelf", "knives": "knife", "wolves": "wolf",
    "buses": "bus", "skis": "ski", "tomatoes": "tomato", "potatoes": "potato",
}  # fmt: skip
_SPELLINGS = {
    "grey": "gray",
    "aeroplane": "airplane",
    "doughnut": "donut",
    "colour": "color",
    "tv": "television",
}

_YES = _word_set("yes yeah yep true")
_NO = _word_set("no nope not false")
_NEGATIONS = _word_set("no not never without neither nor cannot")
_NOTHING = _word_set("none nothing nobody")
_BOUNDS = _word_set("than least most over under or")  # "more than 3" is not 3
_FILLERS = _word_set("or and maybe perhaps possibly it is also")
# Words around an answer that carry none of it.
_FUNCTION_WORDS = _word_set(
    "is are was were be it its this that these those there here i think believe see can we in on at of to side "
    "picture image shown which what who"
)
# Adjectives that describe a thing without making it another thing; "hot" and "teddy" are not among them.
_ADJECTIVES = _word_set(
    "red orange yellow green blue purple pink brown black white gray silver golden beige tan dark light small "
    "large big little tall short young old wooden metal"
)
_DESCRIBES = _word_set(
    "in on at with near by next behind beside under below above inside beneath standing sitting lying wearing "
    "holding is are that which who because"
)
_EXPLAINS = _word_set(
    "is are was were has have can because since as so which who not it appears seems stands sits shows"
)

_NUMBER = r"(?:(?<![\w.)])-)?(?:\d+(?:\.\d+)?|(?<!\w)\.\d+)"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+(?:'[^\W\d_]+)?")
_CLAUSE_END = re.compile(r"[;\n!?,()]|[.:](?!\d)|\s[-\u2013\u2014]\s")
_SENTENCE_END = re.compile(r"[;\n!?]|\.(?!\d)")
_LIST = re.compile(rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]")
_BOX = re.compile(r"[\[(]\s*" + r"\s*,\s*".join([r"-?\d+(?:\.\d+)?"] * 4) + r"\s*[\])]")
_LEAD_IN = re.compile(r".*\banswer\s*(?:is|would be|:|=)\s*", re.IGNORECASE | re.DOTALL)
# Possessive, so that a text of white space takes linear time.
_BOTH_WAYS = re.compile(
    r"^\W*+(yes|no)(?:\s*+(?:/|\||&|\bor\b|\band\b)\s*+(?!\1\b)(?:yes|no)\b"
    r"|(?:\s++|\s*+[^\w\s]\s*+)(?!\1\b)(?:yes|no)\s*+(?:$|[.,;!/]))",
    re.IGNORECASE,
)
_LONGEST_RUN_OF_MARKS = 30  # Unicode's own bound (UAX 15, stream-safe text)


def normalise(text: str) -> str:
    """The words of a text in one spelling, joined by single spaces.

    Lower case; punctuation, a leading article and markup gone; plurals made singular; number words and numerals
    in one form ("Twenty-one" and "21.0" are both "21"). Articles stay when nothing else is there.
    """
    return " ".join(_words(text))


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
    if _wanted_letters(expected, _choices(question or "")):
        return AnswerKind.OPTION
    if normalise(expected) in ("yes", "no"):
        return AnswerKind.YES_NO
    if _LIST.fullmatch(expected.strip()):
        return AnswerKind.LIST
    return AnswerKind.TEXT if _as_number(_words(expected)) is None else AnswerKind.NUMBER


def said_yes_or_no(given: str) -> str | None:
    """ "yes" or "no" as an answer says it, or None where it says neither or both."""
    said = _without_markup(given)
    return _polarity(said) if _words(said) else None


def same_answer(expected: str, given: str, question: str | None = None) -> bool:
    """Whether the given answer says what the expected one says.

    The kind of the expected answer decides: an option of the choices listed in the question (by letter or by text),
    yes/no, a number, a list of numbers, or text. An explanation after the answer is allowed; a second candidate is not. Raises
    ValueError for an expected box, which no comparison of words can judge: measure it by overlap instead.
    """
    if is_box_answer(expected):
        raise ValueError(f"an expected box is compared by overlap and not by words, got {expected!r}")
    said = _without_markup(given)
    if not _words(said):
        return said.casefold() == expected.strip().casefold() != ""
    choices = _choices(question or "")
    wanted = _wanted_letters(expected, choices)
    if wanted:
        picked = _picked_letters(said, choices)
        if picked:
            return picked <= wanted
        expected = choices[min(wanted)]
    if normalise(expected) in ("yes", "no"):
        return _polarity(said) == normalise(expected)
    if _LIST.fullmatch(expected.strip()):
        return _numbers_in(said) == _numbers_in(expected)
    number = _as_number(_words(expected))
    if number is not None:
        return _number_said(said) == number
    return _same_text(_words(expected), said, _words(question or ""))


def _words(text: str) -> list[str]:
    text = _composed(text).lower().replace("\u2019", "'").replace("\u2212", "-")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 1,000
    raw = [token.removesuffix("'s") for token in _TOKEN.findall(text)]
    words = [word for word in raw if word not in _ARTICLES] or raw
    return _with_numerals([_one_spelling(word) for word in words])


def _composed(text: str) -> str:
    """The text in Unicode's form NFKC. Long runs of combining marks, which are sorted in quadratic time, are broken up."""
    if text.isascii():
        return text
    safe, run = list[str](), 0
    for letter in text:
        run = run + 1 if unicodedata.combining(letter) else 0
        if run > _LONGEST_RUN_OF_MARKS:
            safe.append("\u034f")  # the combining grapheme joiner ends a run and shows nothing
            run = 1
        safe.append(letter)
    return unicodedata.normalize("NFKC", "".join(safe))


def _one_spelling(word: str) -> str:
    if re.fullmatch(_NUMBER, word):
        value = Decimal(word)
        return f"{value.normalize():f}" if value else "0"
    word = _IRREGULAR.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes", "zzes")):
        word = word[:-2]
    elif word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return _SPELLINGS.get(word, word)


def _with_numerals(words: list[str]) -> list[str]:
    """The words with "twenty", "one" written 21; hundreds and beyond stay words."""
    out: list[str] = []
    tens = None
    for word in words:
        unit = _UNITS.get(word)
        if tens is not None and unit is not None and 1 <= unit <= 9:
            out[-1] = str(tens + unit)
            tens = None
            continue
        tens = _TENS.get(word)
        value = unit if tens is None else tens
        out.append(word if value is None else str(value))
    return out


def _without_markup(given: str) -> str:
    """The answer without Markdown, LaTeX wrappers, box coordinates, and what leads up to "the answer is"."""
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", given)
    text = _BOX.sub(" ", text)
    text = re.sub(r"[*`$\"]", "", text)
    lead_in = _LEAD_IN.match(text)
    after = text[lead_in.end() :] if lead_in else text
    return after.strip() or text.strip()


def _clauses(text: str) -> list[list[str]]:
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return [words for part in _CLAUSE_END.split(text) if (words := _words(part))]


# Multiple choice.


def _choices(question: str) -> dict[str, str]:
    """The options a question lists, letter to text: "(A) 10", or "A. 10" at the start of a line; at least two."""
    for marker in (r"\(([A-Z])\)[ \t]*", r"(?m)^[ \t]*([A-Z])[.):][ \t]+"):
        marks = list(re.finditer(marker, question))
        starts = [index for index, mark in enumerate(marks) if mark[1] == "A"]
        if not starts:
            continue
        marks = marks[starts[-1] :]
        ends = [mark.start() for mark in marks[1:]] + [len(question)]
        choices = {
            mark[1]: (question[mark.end() : end].splitlines() or [""])[0].strip(" \t,;")
            for index, (mark, end) in enumerate(zip(marks, ends, strict=True))
            if mark[1] == chr(ord("A") + index)
        }
        if len(choices) >= 2:
            return choices
    return {}


def _wanted_letters(expected: str, choices: dict[str, str]) -> set[str]:
    """The letters of the expected option: none if the question lists no such option, two if it lists it twice."""
    bare = "".join(expected.split())
    exact = {letter for letter, text in choices.items() if "".join(text.split()) == bare}
    alike = {letter for letter, text in choices.items() if normalise(text) == normalise(expected) != ""}
    return exact or alike or {expected.strip(" ().").upper()} & set(choices)


def _picked_letters(said: str, choices: dict[str, str]) -> set[str]:
    """The options an answer names by letter or, failing that, by text; more than one when it hedges."""
    bare = "".join(said.split())
    exact = {letter for letter, text in choices.items() if "".join(text.split()) == bare}
    if exact:
        return exact
    named = {
        first or second
        for first, second in re.findall(r"\(([A-Z])\)|\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-Z])\b", said)
        if (first or second) in choices
    }
    leading = re.match(r"\(?([A-Z])([).:,]*)\s*(.*)", said)
    letter, mark, rest = leading.groups() if leading else ("", "", "")
    by_text = {other for other, text in choices.items() if normalise(text) == normalise(rest) != ""}
    # "B 140" names an option twice; in "A dog" the A is an article unless the first option is a dog.
    if letter in choices and by_text and (mark or letter != "A" or by_text == {"A"}):
        return named | {letter} | (set() if letter in by_text else by_text)
    if re.fullmatch(r"\W*[A-Za-z](?:\s*(?:[,/|&;.]|\bor\b|\band\b)\s*[A-Za-z])*\W*", said):
        return {single for single in re.findall(r"\b[A-Z]\b", said.upper()) if single in choices}
    if letter in choices and mark:
        return named | {letter}
    return named or _options_mentioned(_words(said), choices)


def _options_mentioned(words: list[str], choices: dict[str, str]) -> set[str]:
    """The options whose words occur in the answer; an option inside a longer one mentioned does not count."""
    texts = {letter: _words(text) for letter, text in choices.items()}
    whole = {letter for letter, text in texts.items() if text == words}
    if whole:
        return whole
    if _NEGATIONS & set(words):
        return set()
    spans = {
        letter: (start, start + len(text))
        for letter, text in texts.items()
        if text and text[0] not in _YES | _NO and (start := _find(text, words)) is not None
    }
    return {
        letter
        for letter, (start, end) in spans.items()
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b in spans.values())
    }


def _find(part: list[str], whole: list[str]) -> int | None:
    starts = range(len(whole) - len(part) + 1)
    return next((start for start in starts if whole[start : start + len(part)] == part), None)


# Yes or no.


def _polarity(said: str) -> str | None:
    """ "yes" or "no" as the answer says it, or None where it says neither or both."""
    if _BOTH_WAYS.match(said):
        return None
    sentences = [words for part in _SENTENCE_END.split(said) if (words := _words(part))]
    openings = [_polar(sentences[0][0])]
    # A later sentence counts only when it is a bare yes or no: "Yes. No other dog is there." says yes.
    openings += [_polar(words[0]) for words in sentences[1:] if len(words) == 1]
    found = {opening for opening in openings if opening}
    if len(found) == 1:
        return found.pop()
    spoken = [word for word in _words(said) if word in ("yes", "no")]
    if not found and len(spoken) == 1 and sentences[-1][-1] == spoken[0]:
        return spoken[0]
    return None


def _polar(word: str) -> str | None:
    if word in _YES:
        return "yes"
    return "no" if word in _NO else None


# Numbers.


def _as_number(words: list[str]) -> str | None:
    return words[0] if len(words) == 1 and re.fullmatch(_NUMBER, words[0]) else None


def _number_said(said: str) -> str | None:
    """The one number an answer gives, or None where it gives none, several or a bound."""
    if re.search(r"\d\+(?!\s*\d)|[<>~\u2264\u2265\u2248]\s*\d", said):
        return None
    clauses = _clauses(said.rsplit("=", 1)[-1])
    values = [_values(clause) for clause in clauses]
    first = next((index for index, found in enumerate(values) if found), None)
    if first is None or len(set(values[first])) > 1:
        return None
    number = values[first][0]
    for clause in clauses[first + 1 :]:
        opening = next((word for word in clause if word not in _FILLERS), "")
        if re.fullmatch(_NUMBER, opening) and opening != number:
            return None
    return number


def _numbers_in(text: str) -> list[str]:
    """The numbers of the last list in brackets or, where there is none, every number of the text; in order."""
    lists = _LIST.findall(text)
    if not lists:
        return [word for word in _words(text) if re.fullmatch(_NUMBER, word)]
    return [_one_spelling(number.strip()) for number in lists[-1].strip("[]").split(",")]


def _values(clause: list[str]) -> list[str]:
    """The numbers of a clause; "none", "no dogs" and "not any" are 0, a bare "no" is not."""
    numbers = [word for word in clause if re.fullmatch(_NUMBER, word)]
    denied = bool(_NEGATIONS & set(clause)) or any(word.endswith("n't") for word in clause)
    if numbers:
        return [] if denied or _BOUNDS & set(clause) else numbers
    counted = [word for word in clause if word not in _NEGATIONS | _FUNCTION_WORDS]
    no_such = "no" in clause or ("any" in clause and denied)
    return ["0"] if _NOTHING & set(clause) or (no_such and counted) else []


# Text.


def _same_text(wanted: list[str], said: str, question: list[str]) -> bool:
    words = _words(said)
    if "".join(words) == "".join(wanted):
        return True
    head, *later = _clauses(said) or [words]
    extra = set(head) - set(wanted)
    if extra & _NEGATIONS or "or" in extra or any(word.endswith("n't") for word in extra):
        return False
    if ("/" in said or "|" in said) or not all(_adds_no_candidate(clause, wanted) for clause in later):
        return False
    content = [word for word in wanted if word not in _FUNCTION_WORDS]
    if not content:
        return head == wanted
    offered = {word for i, word in enumerate(question) if "or" in question[max(0, i - 1) : i + 2]}
    echoed = (set(question) - offered) | _FUNCTION_WORDS
    core = [word for word in head if word in wanted or word not in echoed]
    core = [word for word in core if word not in _FUNCTION_WORDS]
    plain = [word for word in core if word in wanted or word not in _ADJECTIVES]
    if content in (core, plain):
        return True
    return _opens_with(content, head)


def _adds_no_candidate(clause: list[str], wanted: list[str]) -> bool:
    """Whether a later clause explains or repeats the answer, and does not offer another one."""
    return set(clause) <= set(wanted) or (clause[0] != "or" and bool(set(clause) & _EXPLAINS))


def _opens_with(content: list[str], head: list[str]) -> bool:
    """Whether a clause opens with the answer, described before by adjectives and after by a phrase."""
    skipped = _FUNCTION_WORDS | _ADJECTIVES
    start = next((i for i, word in enumerate(head) if word not in skipped or word == content[0]), len(head))
    end = start + len(content)
    return head[start:end] == content and end < len(head) and head[end] in _DESCRIBES
