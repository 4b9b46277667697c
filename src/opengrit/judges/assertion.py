"""Whether a text asserts what one of its parts says: nothing before it, beside it or after it may take it back.

A sentence that gives an answer holds the answer and words that are accounted for: framing ("The answer is", "I can see"),
words of the question, an adjective, a phrase that describes. Any other word makes it a sentence about something else. What
a mark sets off before or after is reasoning or an explanation: it may use any words but those of doubt, denial, refusal,
retraction, alternatives and conditions, and it must have to do with the question.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from opengrit.judges.numerals import UNITS
from opengrit.judges.wording import Token, singular, words_of


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


ARTICLES = word_set("a an the")
# Words that frame an answer and say nothing about it.
FRAME = word_set(
    "a an the answer is are was were be am it its it's that this these those there there's that's i i'd i'll i've we you one's "
    "can see count counted find found observe spot notice detect identify think believe would say choose pick select go with my our "
    "final correct right best option choice letter result total sum number count value of in on at to image picture photo "
    "photograph scene frame shown depicted pictured visible displayed so therefore thus hence then overall altogether exactly just "
    "here here's let given upon ans will must make looked selected chosen examining analyzing inspecting observing there're among option ans all based looking after counting carefully from what finally ok okay sure well now has have had contain "
    "include show appear as by all conclusion final question do does you'll look closely step by per question's me us "
    "there're they're i'm confident certain according provided clearly definitely indeed obviously precisely which they "
    "answering respond response reply solution conclude equal give get obtain calculate computed result being who who's calculated "
    "\u7b54\u6848 \u7b54\u6848\u662f \u662f \u9009 \u9009\u62e9 \u6b63\u786e\u7b54\u6848 \u6b63\u786e\u7b54\u6848\u662f \u6b63\u786e\u9009\u9879\u662f "
    "\u6709 \u5171\u6709 \u4e00\u5171\u6709 \u5e94\u9009 \u6211\u9009 \u6240\u4ee5 \u56e0\u6b64 \u56fe\u4e2d\u6709 "
    "la el respuesta es r\u00e9ponse est antwort ist die risposta \u00e8"
)  # fmt: skip
CONCLUDES = word_set(
    "answer therefore so thus hence total finally conclusion overall altogether result final conclude sum make \u7b54\u6848 \u7b54\u6848\u662f \u6240\u4ee5 \u56e0\u6b64 "
    "equal"
)
CONCLUSIONS = word_set("so therefore thus hence")
LINKS = word_set(
    "is are was were be it's that's there's here's there're see say choose pick select has have contain include show appear make answer option choice "
    "find found observe spot notice detect identify think believe conclude count counted total as would exactly just only \u662f"
)
PICTURES = word_set("image picture photo photograph scene frame")
PREPOSITIONS = word_set(
    "in on at of to by with from near under over behind above below beside beneath inside outside"
)
ADJECTIVES = word_set(
    "red orange yellow green blue purple pink brown black white gray silver golden beige tan dark light small "
    "large big little tall short young old wooden metal"
)
# Words after an answer that say that and where it is seen.
SEEN = word_set(
    "overall is are the this that which can be been i we you see seen visible shown present depicted displayed pictured here there in on at of to image picture photo "
    "photograph scene altogether total all found located positioned situated placed them they has have what object thing one"
)
SCENE = word_set(
    "left right top bottom front back middle center centre side corner edge foreground background upper lower above below behind beside near next "
    "between inside outside under beneath image picture photo photograph scene visible seen see shown show here there "
    "first second one another both each because since total together stand sit wear hold located positioned situated placed they them all standing sitting lying wearing holding walking playing"
)
EMPHASIS = word_set(
    "obviously clearly definitely indeed certainly sure exactly yes correct right final answer it is so thank there thanks reason explanation"
)
TAIL_STARTS = word_set(
    "in on at with near by next behind beside under below above inside beneath standing sitting lying wearing holding overall is are was were that which "
    "located positioned situated who because of from visible shown present depicted seen here there altogether together overall total pictured has have do does can you i as "
    "left right playing walking running since"
)
COPULAS = word_set("is are was were has have do does can be")
GENERIC = word_set(
    "object item thing piece animal instance individual of them these those one they it in total all such kind different "
    "separate distinct whole"
)

DENIALS = word_set(
    "no not never none neither nor without cannot isn't aren't wasn't weren't doesn't don't didn't won't wouldn't can't couldn't shouldn't ain't "
    "haven't hasn't hadn't nothing nobody nowhere hardly scarcely barely cant dont isnt arent doesnt wont"
)
DOUBTS = word_set(
    "maybe perhaps possibly probably likely presumably supposedly allegedly might could may unsure uncertain unclear guess guessing guessed "
    "doubt doubtful doubtfully wrong incorrect incorrectly false falsely untrue mistaken mistake error erroneous wait actually correction sorry oops whoops scratch "
    "rather instead alternatively otherwise either or unless if assuming depend depending except excluding excluded unknown impossible possible unlikely "
    "cannot can't couldn't unable joking kidding joke psych opposite contrary ignore disregard nonsense fake pretend hypothetically suppose "
    "supposing versus vs ambiguous debatable contradict however though although but yet roughly nearly almost approximately approx minimum maximum least most more fewer "
    "less plus extra additional additionally ish nevermind nope nah undecided hesitate undetermined indeterminate illegible unanswerable invalid "
    "partly partially mostly nowhere hardly scarcely barely never said say claim wrote ask asked told assume imagine try tentatively arguably somewhat hmm um uh er hm reconsider recount recheck miscounted retract withdraw missing unavailable "
    "estimate estimated estimation ballpark random randomly lie lied lying-about false bet hope wish wonder wondering should instead besides both neither nor etc "
    "\u4e0d \u4e0d\u662f \u4e0d\u5bf9 \u9519 \u9519\u4e86 \u6216 \u6216\u8005 \u53ef\u80fd \u4e5f\u8bb8 \u6ca1\u6709 \u975e"
) - {"lie", "both"}  # fmt: skip
# Together they take an answer back, or leave it open.
DOUBTFUL_PHRASES = tuple(
    phrase.split()
    for phrase in (
        "not sure", "not certain", "not true", "not correct", "not right", "not the", "not really", "not quite", "not it", "not exactly", "not that", "not a",
        "not accurate", "not what", "not so", "no idea", "no way", "hard to", "difficult to", "don't know", "do not know", "i don't", "i do not", "isn't it", "isn't right",
        "isn't correct", "isn't true", "isn't the", "isn't what", "aren't the", "second thought", "take that back", "take it back", "take this back", "give or take", "up to",
        "who knows", "quote me", "not counting", "my bad", "at most", "or so", "as if", "yeah right", "as an ai", "too many", "too few", "too low", "too high", "off by",
        "far from", "anything but", "nothing like", "change my", "changed my", "hold on", "never mind", "fifty fifty", "toss up", "coin flip", "same time", "and counting",
        "other option", "another option", "as well", "kind of", "sort of", "in a way", "in theory", "in part", "of sorts", "more or", "not this", "to some", "the other", "so on", "and others", "and more", "among others", "in name", "left behind", "and a few", "another possibility", "trick question", "what the question",
    )
)  # fmt: skip
_PHRASES_BY_WORD: dict[str, list[list[str]]] = {}
for _phrase in DOUBTFUL_PHRASES:
    _PHRASES_BY_WORD.setdefault(_phrase[0], []).append(_phrase)
COMPARES = word_set(
    "than less more fewer least most over under times half third quarter double triple twice squared cubed minus plus short missing extra additional other "
    "another too about around approximately roughly nearly almost between up down off fold dozen hundred thousand million billion percent ratio per wrong"
)
INTERROGATIVES = word_set("how many much what which who whom whose why when where whether if")
DANGER = DENIALS | DOUBTS | COMPARES | INTERROGATIVES


@dataclass(frozen=True, slots=True)
class Context:
    """What a question accounts for."""

    question: frozenset[str] = frozenset()  # its words, in the singular; empty where there is no question
    topics: frozenset[str] = (
        frozenset()
    )  # words that an explanation may be about, besides those of the question
    asked: tuple[str, ...] = field(default=())  # the words of the question in order

    @property
    def content(self) -> frozenset[str]:
        """The words of the question that an answer may repeat: no letters of options, no words of doubt or number."""
        return frozenset(
            word for word in self.question - DANGER - ARTICLES if len(word) > 1 or not word.isascii()
        )

    @property
    def is_known(self) -> bool:
        """Whether the question says what it is about: "How many are there?" does not."""
        return bool(self.content - FRAME - GENERIC)


def context_of(parts: Sequence[Token], topics: Collection[str] = ()) -> Context:
    """The context that the tokens of a question make."""
    asked = tuple(words_of(parts))
    return Context(frozenset(asked), frozenset(topics) - ARTICLES, asked)


def sentence_start(parts: Sequence[Token], index: int) -> int:
    """Where the sentence of a token begins, or the clause that draws a conclusion: ", so the answer is"."""
    while index > 0 and not parts[index - 1].ends_sentence:
        index -= 1
        if parts[index].text in CONCLUSIONS and index and parts[index - 1].text in ",:\u2014":
            return index
    return index


def clause_end(parts: Sequence[Token], index: int) -> int:
    """Where the words after a token end: at the next mark, or at a word that opens a reason."""
    while index < len(parts) and not parts[index].is_mark and parts[index].text not in ("because", "since"):
        index += 1
    return index


_ASKING_VERBS = word_set("is are was were am do does did can could will would shall has have")
_SUBJECTS = word_set("it there that this these those you i we they he she")


def is_framing(parts: Sequence[Token], context: Context, *, extra: Collection[str] = ()) -> bool:
    """Whether all words are framing or the question's; commas, colons and opening brackets may set them apart.

    Where no question says what is asked, "The ratio is" and "The value of x is" may name it.
    """
    if not context.is_known and _names_the_asked(parts):
        return True
    spoken = [token.text for token in parts[:2] if token.is_word]
    if len(spoken) == 2 and spoken[0] in _ASKING_VERBS and spoken[1] in _SUBJECTS:
        return False  # "was it B" asks
    allowed = FRAME | context.content
    before = ""
    for token in parts:
        if token.glued and token.is_word:
            return False
        if token.text == "be" and before not in ("would", "will", "must", "to", "can"):
            return False
        if token.text == "question" and before not in ("the", "this"):
            return False
        before = token.text
        if token.is_word:
            word = singular(token.text)
            if word not in allowed and token.text not in allowed and word not in extra:
                return False
        elif token.text not in ",:([{\u2014)]}":
            return False
    return True


_LABELS = word_set(
    "step question option picture image photo figure page room player number id letter opposite problem trick lie"
)


def _names_the_asked(parts: Sequence[Token]) -> bool:
    parts = [token for token in parts if token.text not in CONCLUSIONS and token.text not in ","]
    words = [token.text for token in parts]
    if not 2 <= len(words) <= 7 or words[-1] not in ("is", "are", "was", "equals", ":"):
        return False
    if words[0] != "the" and not (len(words) == 2 and words[1] == ":"):
        return False
    return all(
        token.is_word and token.text not in DANGER - {"ratio"} and singular(token.text) not in _LABELS
        for token in parts[:-1]
    )


def is_reasoning(before: Sequence[Token], lead: Sequence[Token], context: Context) -> bool:
    """Whether what precedes the answering sentence leads up to it: nothing, the question itself, a greeting, or steps."""
    if not any(not token.is_mark for token in before):
        return not any(token.text in "!?" for token in before)
    words = [singular(token.text) for token in before if token.is_word]
    asks = any(word in INTERROGATIVES for word in words) or before[-1].text == "?"
    if (
        asks
        and set(words) <= context.question | FRAME | INTERROGATIVES
        and not any(token.is_number for token in before)
    ):
        return True
    if is_doubtful([token for token in before if token.text != "?"]):
        return False
    if any(token.text in ("answer", "option", "choice") for token in before) and not is_framing(
        [token for token in before if not token.is_mark], context
    ):
        return False
    if any(singular(token.text) in CONCLUDES or token.text == "=" for token in lead):
        return True
    known = FRAME | context.content | SCENE | GENERIC | ADJECTIVES
    return all(
        word in known or token.text in known
        for token, word in zip([t for t in before if t.is_word], words, strict=True)
    ) and not any(token.is_number or token.text in UNITS for token in before)


def is_doubtful(parts: Sequence[Token]) -> bool:
    """Whether words of doubt, denial, refusal, retraction, alternatives or conditions occur, or a question is asked."""
    words = [token.text for token in parts]
    if "?" in words:
        return True
    if any(word in DOUBTS or singular(word) in DOUBTS for word in words):
        return True
    if any(_opens_with_no(words, index) for index, word in enumerate(words) if word in ("no", "not")):
        return True
    return any(
        words[index : index + len(phrase)] == phrase
        for index, word in enumerate(words)
        for phrase in _PHRASES_BY_WORD.get(word, ())
    )


def _opens_with_no(words: Sequence[str], index: int) -> bool:
    """Whether a "no" is a word of its own ("2. No, 3") and not of a noun ("no other dog")."""
    following = words[index + 1] if index + 1 < len(words) else "."
    return not following[0].isalnum()


def is_explanation(rest: Sequence[Token], context: Context) -> bool:
    """Whether what follows the answer may follow it: nothing, or words that explain it and take nothing back."""
    words = [token for token in rest if token.is_word]
    if not words:
        return all(token.is_mark and token.text != "?" for token in rest)
    if is_doubtful(rest) or any(token.text in "%~" for token in rest):
        return False
    if any(token.text in ("answer", "option", "choice") for token in words):
        return all(singular(token.text) in FRAME | EMPHASIS | context.topics for token in words)
    anchors = context.content | context.topics | SCENE | ADJECTIVES
    said = [singular(token.text) for token in words]
    return any(word in anchors for word in said) or all(word in EMPHASIS or word in FRAME for word in said)


_JUDGEMENTS = word_set("answer correct right total count result sum")
_COMPLEMENTS = word_set(
    "is are was were the my final correct right best true answer option choice one total count result sum this that so number of here there obviously clearly definitely indeed"
)


def is_verdict(words: Sequence[str], context: Context) -> bool:
    """Whether "is ..." after an answer says that it is the answer: "is correct", "is the number of dogs"."""
    said = [singular(word) for word in words]
    if not words or words[0] not in ("is", "are", "was", "were") or "a" in said or "an" in said:
        return False
    if "number" in said and "the" not in said:
        return False
    return all(word in _COMPLEMENTS | context.content for word in said) and bool(
        set(said) & (_JUDGEMENTS | {"number"})
    )


def contrast(rest: Sequence[Token], says_it: Collection[str]) -> int:
    """How many tokens of an explanation set the answer against another: ", not 3", ", not the cat"; 0 where none do."""
    start = 0
    while start < len(rest) and rest[start].text in ",;(\u2014":
        start += 1
    if start + 1 >= len(rest) or rest[start].text != "not" or start == 0:
        return 0
    end = clause_end(rest, start)
    named = [token for token in rest[start + 1 : end] if token.raw not in ARTICLES]
    if (
        not named
        or len(named) > 4
        or any(token.text in says_it or singular(token.text) in says_it for token in named)
    ):
        return 0
    is_letter = len(named) == 1 and len(named[0].raw) == 1
    return 0 if not is_letter and is_doubtful([rest[start], *named]) else end


OPPOSITES: dict[str, set[str]] = {}
for _one, _other in (
    ("left", "right"), ("front", "behind"), ("above", "below"), ("above", "under"), ("over", "under"), ("over", "below"), ("on", "under"),
    ("on", "below"), ("inside", "outside"), ("top", "bottom"), ("upper", "lower"), ("before", "after"), ("near", "far"),
):  # fmt: skip
    OPPOSITES.setdefault(_one, set()).add(_other)
    OPPOSITES.setdefault(_other, set()).add(_one)


def is_elsewhere(tail: Sequence[str], context: Context) -> bool:
    """Whether a place is named and not the one of the question: "on the floor" where it says "on the table"."""
    if not tail or tail[0] not in PREPOSITIONS or tail[0] not in context.asked:
        return False
    place = context.asked[context.asked.index(tail[0]) + 1 :]
    named = {singular(word) for word in tail[1:]}
    return not named & (context.content | SCENE | GENERIC | SEEN - ARTICLES) and not PICTURES & set(place)


def _is_on_a_thing(parts: Sequence[Token], at: int, context: Context) -> bool:
    """Whether "on" is followed by a thing of the question, as in "on the chair", and not by a side."""
    following = next((singular(t.text) for t in parts[at + 1 : at + 3] if t.text not in ARTICLES), "")
    return following in context.content - SCENE


def says_the_opposite(parts: Sequence[Token], context: Context) -> bool:
    """Whether a relation is said whose opposite was asked about: "on the left" where the question says right."""
    return any(
        (token.text != "on" or _is_on_a_thing(parts, at, context))
        and OPPOSITES.get(token.text, set()) & context.question
        and token.text not in context.question
        and not (
            token.text == "right"
            and [after.text for after in parts[at + 1 : at + 2]]
            in (["answer"], ["option"], ["choice"], ["one"])
        )
        for at, token in enumerate(parts)
    )
