"""The nouns: questions, answers and their scores."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from opengrit.core.boxes import Box, Size

# "How many ...", also behind a few words of the same sentence ("In the picture, how many ..."), and "Count the ...".
_ASKS_HOW_MANY = re.compile(r"[^.:;?!\n]{0,80}\bhow many\b|(please )?count (the|all|every)\b")
_COUNTING = frozenset({"tallyqa", "tally", "count", "counting"})


class Finish(Enum):
    """Why a completion ended."""

    STOP = "stop"  # it wrote a stop string such as </answer>
    EOS = "eos"  # it wrote an end-of-sequence token
    LENGTH = "length"  # it ran into the token limit and is truncated
    UNKNOWN = "unknown"  # text from elsewhere; nobody recorded it


class Section(Enum):
    """The part of a transcript that a character belongs to."""

    THOUGHT = "thought"  # between <think> and </think>, or before the first tag that closes it
    RETHINK = "rethink"
    ANSWER = "answer"
    OUTSIDE = "outside"


class Tag(Enum):
    """The six tags of the format, as written."""

    THINK_OPEN = "<think>"
    THINK_CLOSE = "</think>"
    RETHINK_OPEN = "<rethink>"
    RETHINK_CLOSE = "</rethink>"
    ANSWER_OPEN = "<answer>"
    ANSWER_CLOSE = "</answer>"


class Rejection(Enum):
    """Why numbers that look like a box are not one."""

    REVERSED = "reversed"  # right <= left or bottom <= top
    NEGATIVE = "negative"  # wholly left of or above the picture
    OUT_OF_PICTURE = "out of the picture"
    NOT_FOUR_NUMBERS = "not four numbers"  # or some that are not left, top, right and bottom
    ANOTHER_UNIT = (
        "written in another unit"  # per cent, pixels in a frame without, or fractions in a frame of steps
    )
    NOT_FINITE = "not a finite number"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one picture. Boxes are the annotated ones, unit square, possibly none."""

    id: str
    question: str
    answer: str
    image: str  # path as it can be opened (absolute, or relative to the working folder)
    dataset: str
    picture_size: Size
    boxes: tuple[Box, ...] = ()
    boxes_known: bool = True  # False where the row has no "bboxs" field at all
    key_words: tuple[str, ...] = ()
    split: str | None = None
    also_accepted: tuple[str, ...] = ()  # other answers that are right too; the model is shown none of them

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every answer that is right, the row's own first."""
        return (self.answer, *self.also_accepted)

    @property
    def count(self) -> int | None:
        """The answer as a whole number of at most nine digits, or None if it is not one."""
        return _whole_number(self.answer)

    @property
    def counts(self) -> tuple[int, ...]:
        """Those of the accepted answers that are whole numbers, the row's own first; empty where that is none."""
        if self.count is None:
            return ()
        return tuple(number for answer in self.accepted if (number := _whole_number(answer)) is not None)


def _whole_number(answer: str) -> int | None:
    text = answer.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def is_counting(example: Example) -> bool:
    """Whether the row counts things: a whole-number answer to "... how many ...", or from a counting data set.

    A counting data set has "tallyqa", "tally", "count" or "counting" as a part of its name ("stickers/count").
    "mme_count" asks yes/no and so does not count.
    """
    if example.count is None:
        return False
    dataset = example.dataset.lower()
    asks = _ASKS_HOW_MANY.match(example.question.strip().lower()) is not None
    parts = set(re.split(r"[^a-z]+", dataset))
    return asks or not parts.isdisjoint(_COUNTING)


def boxes_are_one_to_one(example: Example) -> bool:
    """Whether the row's boxes can be matched one to one: it has some, and a counting row has as many as it counts.

    TallyQA's annotators often drew one box around a group; matching the members with it would punish good boxes.
    """
    return bool(example.boxes) and (not is_counting(example) or len(example.boxes) in example.counts)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote: text, its token ids (unsampled tokens excluded) and why it ended."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish: Finish = Finish.UNKNOWN


@dataclass(frozen=True, slots=True)
class Pointing:
    """A box named in a text. `start` and `end` are character offsets of the numbers (brackets included)."""

    box: Box
    label: str | None
    section: Section
    start: int
    end: int
    written: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class RejectedPointing:
    """Coordinates that cannot be a box, kept with the reason."""

    text: str
    reason: Rejection
    section: Section
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FoundTag:
    """One tag and its place in the text."""

    tag: Tag
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """A completion, read. Sections are None when the text does not have them; nothing here is ever invented."""

    text: str
    thought: str | None
    rethink: str | None
    answer: str | None
    pointings: tuple[Pointing, ...]
    rejected: tuple[RejectedPointing, ...]
    tags: tuple[FoundTag, ...]
    finish: Finish = Finish.UNKNOWN

    @property
    def thought_pointings(self) -> tuple[Pointing, ...]:
        """The boxes named while thinking (before rethinking)."""
        return tuple(p for p in self.pointings if p.section is Section.THOUGHT)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Every box named anywhere, in order of writing."""
        return tuple(p.box for p in self.pointings)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's opinion. `score` is in [0, 1]; `correct` is the score made binary."""

    correct: bool
    score: float
    judge: str = "rule"


@dataclass(frozen=True, slots=True)
class Unjudged:
    """No opinion could be had: an outage, a refusal, a malformed reply. Never a wrong answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """A rollout's reward: the weighted total and its unweighted parts; `missing` says why there is none."""

    total: float | None
    parts: dict[str, float | None] = field(default_factory=dict)
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One rollout, a line of records.jsonl. Written once, read by metrics, report and viewer.

    Boxes: `box` is unit square, `pixels` is picture pixels, `written` is the model's own frame.
    """

    id: str  # unique in its file: "<example id>#<sample>" in an evaluation, "<step>/<example id>#<sample>" in training
    example: Example
    strategy: str  # the prompt's name: direct, grounded, grounded-icl, sft
    sample: int
    completion: Completion
    transcript: Transcript
    verdict: Verdict | Unjudged
    score: Score
    seen_size: Size  # what the model saw, pixels
    frame: str  # the frame's name, for example "qwen2_5_vl"
    step: int | None = None
    advantage: float | None = None
    failure: str | None = None  # set when the rollout itself failed (picture unreadable, endpoint down)
