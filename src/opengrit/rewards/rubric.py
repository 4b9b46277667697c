"""Small pure rewards with stated ranges, and the `Rubric`: named weights in, a total with its parts out.

Two sets are shipped by name. `paper` is the reward as the paper states it (GRIT, arXiv 2505.15879, section 3.2).
`released` is what the official code adds up, formula by formula but without its mistakes: where a formula and a
mistake in its code disagree, the formula stands and the docstring says what was dropped.

A reward takes an `Attempt` and returns a number, None where it says nothing about this row (a count reward on a row
that counts nothing), or `Unjudged` where it could not be measured. What could not be measured leaves the attempt
without a total: it is never a zero.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Real

from opengrit.core.boxes import union_iou
from opengrit.core.errors import RecipeError, RewardError
from opengrit.core.types import Completion, Example, FoundTag, Score, Tag, Transcript, Unjudged, Verdict
from opengrit.judges.answers import is_box_answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer to one example, read and judged: all that a reward may look at."""

    example: Example
    completion: Completion
    transcript: Transcript
    verdict: Verdict | Unjudged


class Need(Enum):
    """What a reward needs beyond the transcript; the first three are properties of the data."""

    WORDS = "rows whose answer is words or a number, not a box"
    BOXES = 'rows with annotated boxes ("bboxs")'
    COUNTS = 'counting rows (an integer answer to a "How many" question)'
    VERDICT = "a judge"
    TOKEN_IDS = "the token ids of the completion"


Reward = Callable[[Attempt], float | Unjudged | None]


_COUNTING = frozenset({"tallyqa", "tally", "count", "counting"})


def is_counting(example: Example) -> bool:
    """Whether the row counts things: a whole-number answer to "How many ...", or from a counting data set.

    A counting data set has "tallyqa", "tally", "count" or "counting" as a part of its name ("stickers/count").
    "mme_count" asks yes/no and so does not count.
    """
    if example.count is None:
        return False
    dataset = example.dataset.lower()
    asks = example.question.strip().lower().startswith("how many")
    parts = set(re.split(r"[^a-z]+", dataset))
    return asks or not parts.isdisjoint(_COUNTING)


# The answer.


def correct(attempt: Attempt) -> float | Unjudged | None:
    """1 if the judge takes the answer for right, else 0 (s_GPT in the paper); None where the answer is a box."""
    if is_box_answer(attempt.example.answer):
        return None
    return attempt.verdict if isinstance(attempt.verdict, Unjudged) else float(attempt.verdict.correct)


def any_credit(attempt: Attempt) -> float | Unjudged | None:
    """1 if the judge gives the answer any credit at all, else 0; None where the answer is a box.

    The official trainer makes the judge's fraction binary this way, so an answer judged 0.1 earns as much as a
    right one. Its failed calls to the judge count as 0 there; here they leave no total.
    """
    if is_box_answer(attempt.example.answer):
        return None
    return attempt.verdict if isinstance(attempt.verdict, Unjudged) else float(attempt.verdict.score > 0.0)


def bleu1(attempt: Attempt) -> float | None:
    """BLEU-1 between the answer and the expected answer, 0 to 1; 0 without an answer, None where it is a box.

    The answer ends at its closing tag, so the tag's own name is not compared, as it is in the official code.
    """
    if is_box_answer(attempt.example.answer):
        return None
    return sentence_bleu1(attempt.example.answer, attempt.transcript.answer or "")


def sentence_bleu1(reference: str, candidate: str) -> float:
    """The share of the candidate's words that the reference has, each as often as there, times the brevity penalty.

    BLEU of Papineni et al. 2002 with unigrams only, for one sentence and one reference, unsmoothed: 0 to 1. Words
    are lower-cased runs of letters and digits.
    """
    wanted, said = (re.findall(r"[^\W_]+", text.lower()) for text in (reference, candidate))
    if not said:
        return 0.0
    shared = sum((Counter(said) & Counter(wanted)).values())
    brevity = min(1.0, math.exp(1.0 - len(wanted) / len(said)))
    return brevity * shared / len(said)


# The format, as the paper states it.


def tag_pairs(attempt: Attempt) -> float:
    """Half for a correct think pair and half for a correct rethink pair after it: 0, 0.5 or 1 (s_st in the paper).

    A pair is correct when both of its tags occur once and in order. Alone, a rethink pair earns its half.
    """
    tags = attempt.transcript.tags
    think = _pair(tags, Tag.THINK_OPEN, Tag.THINK_CLOSE)
    rethink = _pair(tags, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE)
    if think and rethink and rethink[0].start < think[1].end:
        return 0.5
    return 0.5 * (think is not None) + 0.5 * (rethink is not None)


def points_before_rethinking(attempt: Attempt) -> float:
    """1 if the thought names at least one box, else 0 (s_bf in the paper, which weighs it 0.5)."""
    return float(bool(attempt.transcript.thought_pointings))


def box_count(attempt: Attempt) -> float | None:
    """1 if the thought names as many boxes as the true count, else 0; None on rows that count nothing.

    This is r_count in the paper, which weighs it 0.5. On a row whose count is 0 it pulls against
    `points_before_rethinking`, and the paper's formula is a tie there. A text without a thought earns nothing.
    """
    if not is_counting(attempt.example):
        return None
    transcript = attempt.transcript
    return float(
        transcript.thought is not None and len(transcript.thought_pointings) == attempt.example.count
    )


# The format, as the released code computes it.


def answer_tag(attempt: Attempt) -> float:
    """Half if there is an opening answer tag, and half more if there is just one: 0, 0.5 or 1 (released: times 0.5)."""
    occurrences = sum(found.tag is Tag.ANSWER_OPEN for found in attempt.transcript.tags)
    return 0.5 * (occurrences >= 1) + 0.5 * (occurrences == 1)


def tag_walk(attempt: Attempt) -> float:
    """A fifth for each of the four thinking tags met in order, and the last for a thought of two words; 0 to 1.

    The released code weighs it 0.5. There, a missing tag does not stop later tags from earning and each search
    starts after the last occurrence of the tag before; here the walk stops at the first tag it misses and goes on
    after the first occurrence. A repeated tag is not punished in either.
    """
    transcript = attempt.transcript
    position, met = 0, 0
    for tag in (Tag.THINK_OPEN, Tag.THINK_CLOSE, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE):
        found = next((f for f in transcript.tags if f.tag is tag and f.start >= position), None)
        if found is None:
            return met / 5
        position, met = found.end, met + 1
    return (met + (len((transcript.thought or "").split()) >= 2)) / 5


def boxes_before_rethink_tag(attempt: Attempt) -> float:
    """Half for a box before the first rethink tag, and 1 more on counting rows if as many as the count; 0 to 1.5.

    In the released code's own units; 0 without a rethink tag. On a row whose count is 0, no box earns 1 and a box
    earns 0.5. Whether a row counts is read from that row, where the official code reads it from the first row of the
    batch; coordinates that cannot be a box are not boxes here.
    """
    transcript = attempt.transcript
    rethink = next((found for found in transcript.tags if found.tag is Tag.RETHINK_OPEN), None)
    if rethink is None:
        return 0.0
    boxes = sum(pointing.end <= rethink.start for pointing in transcript.pointings)
    return 0.5 * (boxes >= 1) + 1.0 * (is_counting(attempt.example) and boxes == attempt.example.count)


REPETITION_LENGTH = 8  # tokens or words, from the released code


def repetition(attempt: Attempt) -> float | Unjudged:
    """S_tokens - (1 - S_words), -1 to 1: 1 when no 8-gram is followed by itself (released: times 0.5).

    S is the share of places where 8 tokens (or white-space separated words) are *not* followed by the same 8. A text
    too short to hold 8 twice, an empty one included, earns 0, where the released code gives it full marks; only
    whole 8-grams are compared, and no token id is taken for padding. Unjudged without token ids.
    """
    words = attempt.transcript.text.split()
    token_ids = attempt.completion.token_ids
    if words and not token_ids:
        return Unjudged("the reward 'repetition' needs token ids, and this completion has none")
    if min(len(words), len(token_ids)) < 2 * REPETITION_LENGTH:
        return 0.0
    return _share_unrepeated(token_ids) - (1.0 - _share_unrepeated(words))


def _share_unrepeated(items: Sequence[Hashable], n: int = REPETITION_LENGTH) -> float:
    places = range(len(items) - 2 * n + 1)
    repeats = sum(items[i : i + n] == items[i + n : i + 2 * n] for i in places)
    return 1.0 - repeats / len(places)


# Beyond the paper.


def grounding_iou(attempt: Attempt) -> float | None:
    """Area shared by the union of the boxes written and the union of the row's boxes, over the area of both: 0 to 1.

    None on rows without boxes. The paper measures this and never rewards it. One box over the whole picture earns
    the share of the picture that the true boxes cover.
    """
    if not attempt.example.boxes:
        return None
    return union_iou(attempt.transcript.boxes, attempt.example.boxes)


def _pair(tags: tuple[FoundTag, ...], opening: Tag, closing: Tag) -> tuple[FoundTag, FoundTag] | None:
    found = [tag for tag in tags if tag.tag in (opening, closing)]
    return (found[0], found[1]) if [tag.tag for tag in found] == [opening, closing] else None


# The rubric.


@dataclass(frozen=True, slots=True)
class Stated:
    """What is stated of a reward: the least and the most it returns, and what it needs."""

    low: float
    high: float
    needs: frozenset[Need] = frozenset()


_JUDGED = frozenset({Need.WORDS, Need.VERDICT})
_STATED: dict[Reward, Stated] = {
    correct: Stated(0.0, 1.0, _JUDGED),
    any_credit: Stated(0.0, 1.0, _JUDGED),
    bleu1: Stated(0.0, 1.0, frozenset({Need.WORDS})),
    tag_pairs: Stated(0.0, 1.0),
    points_before_rethinking: Stated(0.0, 1.0),
    box_count: Stated(0.0, 1.0, frozenset({Need.COUNTS})),
    answer_tag: Stated(0.0, 1.0),
    tag_walk: Stated(0.0, 1.0),
    boxes_before_rethink_tag: Stated(0.0, 1.5),
    repetition: Stated(-1.0, 1.0, frozenset({Need.TOKEN_IDS})),
    grounding_iou: Stated(0.0, 1.0, frozenset({Need.BOXES})),
}
REWARDS: dict[str, Reward] = {reward.__name__: reward for reward in _STATED}
STATED: dict[str, Stated] = {reward.__name__: stated for reward, stated in _STATED.items()}
_LARGEST_TOTAL = 1e30  # totals are compared in 32 bits, which end at 3e38

PAPER = {"tag_pairs": 1.0, "points_before_rethinking": 0.5, "box_count": 0.5, "correct": 1.0, "bleu1": 0.1}
RELEASED = {
    "any_credit": 1.0,
    "bleu1": 0.1,
    "answer_tag": 0.5,
    "repetition": 0.5,
    "boxes_before_rethink_tag": 1.0,
    "tag_walk": 0.5,
}
ANSWER_ONLY = {"correct": 1.0}  # plain GRPO: the control that shows what grounding adds
SETS: dict[str, dict[str, float]] = {"paper": PAPER, "released": RELEASED, "answer_only": ANSWER_ONLY}

_APPLIES: dict[Need, Callable[[Example], bool]] = {
    Need.WORDS: lambda example: not is_box_answer(example.answer),
    Need.BOXES: lambda example: bool(example.boxes),
    Need.COUNTS: is_counting,
}


@dataclass(frozen=True, slots=True)
class Rubric:
    """Rewards by name and their weights. Build one with `named` or `from_weights`, which refuse unknown names."""

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights:
            raise RecipeError(
                "rewards must name at least one reward, got none; write for example rewards: paper"
            )
        for name, weight in self.weights.items():
            if name not in REWARDS:
                raise RecipeError(_unknown("a reward", name, REWARDS, place="rewards"))
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise RecipeError(
                    f"a reward's weight must be a finite number, got {weight!r} for rewards.{name}; "
                    f"write for example {name}: 1.0"
                )
        if sum(abs(weight) for weight in self.weights.values()) > _LARGEST_TOTAL:
            raise RecipeError(
                f"the weights of the rewards add up to at most {_LARGEST_TOTAL:g}, got {dict(self.weights)}; "
                "divide all of them under rewards:"
            )

    @classmethod
    def named(cls, name: str) -> Rubric:
        """The shipped set of that name: "paper", "released" or "answer_only". Raises RecipeError on another."""
        if name not in SETS:
            raise RecipeError(_unknown("a set of rewards", name, SETS, place="rewards"))
        return cls.from_weights(SETS[name])

    @classmethod
    def from_weights(cls, weights: Mapping[str, float]) -> Rubric:
        """A rubric of these rewards; weight 0 reports a part without rewarding it. Raises RecipeError."""
        return cls(dict(weights))

    def score(self, attempt: Attempt) -> Score:
        """The weighted total and the unweighted parts, in the rubric's order.

        A part is None where its reward says nothing about the row, and adds nothing; where all are, there is no total.
        Nor is there one where a reward could not be measured: its part is absent, `missing` says why and the other
        parts stand. A reward of weight 0 is only reported, and cannot cost the total. Raises RewardError where a
        reward breaks what is stated of it.
        """
        parts: dict[str, float | None] = {}
        reasons: list[str] = []
        for name, weight in self.weights.items():
            match measure(name, attempt):
                case Unjudged(reason=reason):
                    reasons += [reason] if weight else []
                case value:
                    parts[name] = value
        if all(value is None for value in parts.values()):
            reasons = reasons or ["no reward says anything about this row"]
        if reasons:
            return Score(total=None, parts=parts, missing="; ".join(dict.fromkeys(reasons)))
        total = math.fsum(self.weights[name] * value for name, value in parts.items() if value is not None)
        return Score(total=total, parts=parts)

    def needs(self) -> frozenset[Need]:
        """Everything that some reward of this rubric needs."""
        return frozenset().union(*(STATED[name].needs for name in self.weights))

    def check(self, examples: Sequence[Example]) -> None:
        """Raise RecipeError if a reward can apply to none of the examples: it would be a constant, and teach nothing."""
        for name in self.weights:
            for need in STATED[name].needs & _APPLIES.keys():
                if not any(_APPLIES[need](example) for example in examples):
                    raise RecipeError(
                        f"every reward must apply to some row, and '{name}' needs {need.value}, of which there are "
                        f"none in {len(examples)} rows; leave it out of rewards: or add such rows"
                    )


_ROUNDING = 1e-9  # how far a sum of floats may lie beyond a stated bound


def measure(
    name: str, attempt: Attempt, *, rewards: Mapping[str, Reward] = REWARDS
) -> float | Unjudged | None:
    """What the reward of that name returns for an attempt, as a float where it is a number.

    Raises RewardError, which names the reward, what it did and the row, where it raises, returns something that is no
    number (True and False included), NaN or an infinity, or leaves its stated range.
    """
    reward, stated = rewards[name], STATED[name]
    try:
        value = reward(attempt)
    except Exception as error:  # a reward is any code: whatever it raises is its own mistake, and says so
        what = f"raised {type(error).__name__} ({' '.join(str(error).split())})"
        raise RewardError(_broken(name, reward, attempt, what)) from error
    if value is None or isinstance(value, Unjudged):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        shown = repr(value)
        what = f"returned {shown if len(shown) <= 80 else shown[:77] + '...'}"
        raise RewardError(_broken(name, reward, attempt, what))
    number = float(value)
    if not stated.low - _ROUNDING <= number <= stated.high + _ROUNDING:  # also true of NaN
        raise RewardError(_broken(name, reward, attempt, f"returned {number}"))
    return number


def _broken(name: str, reward: Reward, attempt: Attempt, what: str) -> str:
    example, stated, code = attempt.example, STATED[name], getattr(reward, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return (
        f"a reward returns a number from {stated.low:g} to {stated.high:g}, None or Unjudged, rewards.{name} {what} for the "
        f"row {example.id!r} of {example.dataset!r}; mend the reward{place} or leave it out of rewards:"
    )


def _unknown(kind: str, name: str, known: Mapping[str, object], *, place: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean '{close[0]}', of" if close else "write one of"
    return f"{place} must name {kind}, got '{name}'; {remedy} {', '.join(known)}{'?' if close else ''}"
