"""Which examples a report shows: a fixed number, chosen by what changed between the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Example, Record
from opengrit.reports.outcome_cases import Case, case_of, is_right

MAX_EXHIBITS = 24


@dataclass(frozen=True, slots=True)
class Take:
    """What one run said about an example."""

    run: str
    record: Record


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One example and what each run said about it, in the order of the runs; at least one take."""

    example: Example
    takes: tuple[Take, ...]


class Change(Enum):
    """How the verdict moved from the first take to the last."""

    FIXED = "fixed"
    BROKEN = "broken"
    BOTH_RIGHT = "right both times"
    BOTH_WRONG = "wrong both times"
    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "not judged"


def change(exhibit: Exhibit) -> Change:
    """How the verdict moved; RIGHT or WRONG where there is one take, UNKNOWN where an end is unjudged."""
    first = is_right(exhibit.takes[0].record)
    last = is_right(exhibit.takes[-1].record)
    if first is None or last is None:
        return Change.UNKNOWN
    if len(exhibit.takes) == 1:
        return Change.RIGHT if last else Change.WRONG
    if first == last:
        return Change.BOTH_RIGHT if last else Change.BOTH_WRONG
    return Change.FIXED if last else Change.BROKEN


def last_case(exhibit: Exhibit) -> Case:
    """The case of the last take."""
    return case_of(exhibit.takes[-1].record)


def pair_up(runs: Mapping[str, Sequence[Record]]) -> tuple[Exhibit, ...]:
    """One exhibit an example, in order of first appearance; of several samples the lowest number is taken.

    Two rows are one example when data set and id are equal. A run that lacks an example has no take there.
    """
    examples: dict[tuple[str, str], Example] = {}
    takes: dict[tuple[str, str], list[Take]] = {}
    for run, records in runs.items():
        lowest: dict[tuple[str, str], Record] = {}
        for record in records:
            key = (record.example.dataset, record.example.id)
            if key not in lowest or record.sample < lowest[key].sample:
                lowest[key] = record
        for key, record in lowest.items():
            examples.setdefault(key, record.example)
            takes.setdefault(key, []).append(Take(run, record))
    return tuple(Exhibit(examples[key], tuple(takes[key])) for key in takes)


def choose(exhibits: Sequence[Exhibit], limit: int = MAX_EXHIBITS) -> tuple[Exhibit, ...]:
    """At most `limit` exhibits, the same ones every time.

    The kinds of change take turns (fixed, broken, right, wrong, unjudged), within a kind the cases of the last answer
    (right or wrong, grounded or not), within a case the data sets; then the order given counts. What a kind lacks goes
    to the others. Examples that every
    run answered come before those that only some did. The result is in the order of the kinds.
    """
    most_takes = max((len(e.takes) for e in exhibits), default=0)
    full = _in_turn(_by_change([e for e in exhibits if len(e.takes) == most_takes]))
    partial = _in_turn(_by_change([e for e in exhibits if len(e.takes) < most_takes]))
    order = list(Change)
    return tuple(sorted((full + partial)[:limit], key=lambda e: order.index(change(e))))


def _by_change(exhibits: Sequence[Exhibit]) -> list[list[Exhibit]]:
    """The exhibits of each kind of change, the cases and within them the data sets taking turns."""
    kinds: dict[Change, dict[Case, dict[str, list[Exhibit]]]] = {kind: {} for kind in Change}
    for exhibit in exhibits:
        cases = kinds[change(exhibit)].setdefault(last_case(exhibit), {})
        cases.setdefault(exhibit.example.dataset, []).append(exhibit)
    return [
        _in_turn([_in_turn(list(datasets.values())) for datasets in cases.values()])
        for cases in kinds.values()
    ]


def _in_turn(queues: Sequence[Sequence[Exhibit]]) -> list[Exhibit]:
    """The first of each queue, then the second of each, and so on."""
    longest = max((len(q) for q in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
