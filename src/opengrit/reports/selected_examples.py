"""Which examples a report shows: a fixed number, chosen by what changed between the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Example, Record
from opengrit.evaluation.metrics import grounding_iou
from opengrit.evaluation.metrics.estimates import key_of
from opengrit.grounding.prompts import Strategy
from opengrit.reports.outcomes import Outcome, is_right, outcome_of

MAX_EXAMPLES = 24


@dataclass(frozen=True, slots=True)
class Reply:
    """What one run replied about an example, and how that came out."""

    run: str
    record: Record
    outcome: Outcome

    @classmethod
    def of(cls, run: str, record: Record) -> Reply:
        """The reply of a record."""
        return cls(run, record, outcome_of(record))


@dataclass(frozen=True, slots=True)
class AnsweredExample:
    """One example and each run's reply, in the order of the runs; at least one."""

    example: Example
    replies: tuple[Reply, ...]


class Change(Enum):
    """How the verdict moved from the first reply to the last, among those asked to point where these are several."""

    FIXED = "fixed"
    BROKEN = "broken"
    BOTH_RIGHT = "right both times"
    BOTH_WRONG = "wrong both times"
    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "not judged"


def change(answered: AnsweredExample) -> Change:
    """How the verdict moved; RIGHT or WRONG where there is one reply, UNKNOWN where an end is unjudged."""
    pointing = [reply for reply in answered.replies if reply.record.strategy != Strategy.DIRECT]
    first = is_right((pointing if len(pointing) > 1 else answered.replies)[0].record)
    last = is_right(answered.replies[-1].record)
    if first is None or last is None:
        return Change.UNKNOWN
    if len(answered.replies) == 1:
        return Change.RIGHT if last else Change.WRONG
    if first == last:
        return Change.BOTH_RIGHT if last else Change.BOTH_WRONG
    return Change.FIXED if last else Change.BROKEN


def last_outcome(answered: AnsweredExample) -> Outcome:
    """The outcome of the last reply."""
    return answered.replies[-1].outcome


def pair_up(runs: Mapping[str, Sequence[Record]]) -> tuple[AnsweredExample, ...]:
    """Each example with its replies, in order of first appearance; of several samples the lowest number counts.

    Two rows are one example when data set and id are equal. A run that lacks an example has no reply there.
    """
    examples: dict[tuple[str, str], Example] = {}
    replies: dict[tuple[str, str], list[Reply]] = {}
    for run, records in runs.items():
        lowest: dict[tuple[str, str], Record] = {}
        for record in records:
            key = key_of(record.example)
            if key not in lowest or record.sample < lowest[key].sample:
                lowest[key] = record
        for key, record in lowest.items():
            examples.setdefault(key, record.example)
            replies.setdefault(key, []).append(Reply.of(run, record))
    return tuple(AnsweredExample(examples[key], tuple(replies[key])) for key in replies)


def choose(examples: Sequence[AnsweredExample], limit: int = MAX_EXAMPLES) -> tuple[AnsweredExample, ...]:
    """At most `limit` examples, the same ones every time.

    The kinds of change take turns (fixed, broken, right, wrong, unjudged), within a kind the outcomes of the last reply
    (right or wrong, grounded or not), within an outcome the data sets; then the order given counts. What a kind lacks
    goes to the others. Examples that every run answered come before those that only some did. The result is in the
    order of the kinds, and begins with the most telling of the fixed ones where boxes moved onto their marks.
    """
    most_replies = max((len(e.replies) for e in examples), default=0)
    full = _in_turn(_by_change([e for e in examples if len(e.replies) == most_replies]))
    partial = _in_turn(_by_change([e for e in examples if len(e.replies) < most_replies]))
    order, chosen = list(Change), full + partial
    if (telling := _most_telling(full)) is not None:
        chosen = [telling, *(answered for answered in chosen if answered is not telling)]
    return tuple(sorted(chosen[:limit], key=lambda e: order.index(change(e))))


def _most_telling(examples: Sequence[AnsweredExample]) -> AnsweredExample | None:
    """The fixed example whose boxes moved the most towards the annotated ones; those that had boxes from the start come first."""
    fixed = [(_gain(answered), answered) for answered in examples if change(answered) is Change.FIXED]
    (_, gain), found = max(fixed, key=lambda pair: pair[0], default=((False, 0.0), None))
    return found if gain > 0.0 else None


def _gain(answered: AnsweredExample) -> tuple[bool, float]:
    """Whether the first reply that points has boxes, and how much larger the overlap of the last one is (IoU); (False, 0.0) where it did not grow."""
    replies = [reply.record for reply in answered.replies if reply.record.strategy != Strategy.DIRECT]
    if len(replies) < 2:
        return False, 0.0
    first, last = grounding_iou(replies[0]), grounding_iou(replies[-1])
    if first is None or last is None or last <= first:
        return False, 0.0
    return bool(replies[0].transcript.boxes), last - first


def _by_change(examples: Sequence[AnsweredExample]) -> list[list[AnsweredExample]]:
    """The examples of each kind of change, the outcomes and within them the data sets taking turns."""
    kinds: dict[Change, dict[Outcome, dict[str, list[AnsweredExample]]]] = {kind: {} for kind in Change}
    for answered in examples:
        outcomes = kinds[change(answered)].setdefault(last_outcome(answered), {})
        outcomes.setdefault(answered.example.dataset, []).append(answered)
    return [
        _in_turn([_in_turn(list(datasets.values())) for datasets in outcomes.values()])
        for outcomes in kinds.values()
    ]


def _in_turn(queues: Sequence[Sequence[AnsweredExample]]) -> list[AnsweredExample]:
    """The first of each queue, then the second of each, and so on."""
    longest = max((len(q) for q in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
