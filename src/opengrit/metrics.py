"""Accuracy, grounding IoU, format and their controls over records, each with n and a 95 % interval.

A *quantity* maps a record to a number, or to None where it says nothing about that record. Failed rollouts
(`record.failure`) are None for every quantity and are counted apart; an unjudged answer is None for accuracy. So an
outage makes n smaller and the interval wider, and never a mean lower. A truncated completion is None for what it
would have come to (accuracy, boxes) and is counted by `truncated`; it does not follow the format.

Means and intervals count examples, not records: several samples, or several training seeds, of one example are
averaged first, and the bootstrap draws examples with replacement.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from opengrit.answers import is_box_answer, normalise
from opengrit.boxes import WHOLE_PICTURE, union_iou
from opengrit.rewards import is_counting
from opengrit.types import Example, Finish, Record, Tag, Transcript, Verdict

Quantity = Callable[[Record], float | None]

BOOTSTRAP_SEED = 2505
NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
_DRAWS_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap to about 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over n examples with its 95 % bootstrap interval.

    `value` is None when n is 0. `low` and `high` are None when n is below 2, where an interval says nothing.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval exists and does not hold 0."""
        return self.low is not None and self.high is not None and (self.low > 0.0 or self.high < 0.0)


# Quantities of one record.


def raw_score(record: Record) -> float | None:
    """The judge's score, 0 to 1: the paper's accuracy. None if unjudged."""
    return record.verdict.score if _measured(record) and isinstance(record.verdict, Verdict) else None


def right(record: Record) -> float | None:
    """1 if the judge takes the answer for right, else 0. None if unjudged."""
    return (
        float(record.verdict.correct) if _measured(record) and isinstance(record.verdict, Verdict) else None
    )


def grounding_iou(record: Record) -> float | None:
    """IoU of the union of all boxes written with the union of the row's boxes, 0 to 1 (the paper's GIoU).

    Boxes of every section count, each once. 0 where no box is written, None where the row has no boxes.
    """
    if not _complete(record) or not record.example.boxes:
        return None
    return union_iou(record.transcript.boxes, record.example.boxes)


def whole_picture_iou(record: Record) -> float | None:
    """The grounding IoU of one box over the whole picture, on the same records: the control beside it."""
    if not _complete(record) or not record.example.boxes:
        return None
    return union_iou((WHOLE_PICTURE,), record.example.boxes)


def follows_format(record: Record) -> float | None:
    """1 if the transcript has the full format, else 0.

    A box is asked for where the row has boxes and does not count to 0; elsewhere the tags and an answer are enough,
    because there may be nothing to point at.
    """
    if not _measured(record):
        return None
    example = record.example
    nothing_to_point_at = not example.boxes or (is_counting(example) and example.count == 0)
    return float(full_format(record.transcript, min_boxes=0 if nothing_to_point_at else 1))


def num_boxes(record: Record) -> float | None:
    """How many boxes the transcript names, in every section; rejected ones do not count."""
    return float(len(record.transcript.boxes)) if _complete(record) else None


def count_error(record: Record) -> float | None:
    """How far the number of boxes in the thought is from the true count; None on rows that count nothing.

    Boxes repeated while rethinking or answering are left out, as they name the same things again.
    """
    example = record.example
    if not _complete(record) or not is_counting(example) or example.count is None:
        return None
    return float(abs(len(record.transcript.thought_pointings) - example.count))


def unjudged(record: Record) -> float | None:
    """1 if there is no verdict, else 0.

    None for a truncated completion, which is counted as that, and where the expected answer is a box, which no judge
    is asked about.
    """
    if not _complete(record) or is_box_answer(record.example.answer):
        return None
    return float(not isinstance(record.verdict, Verdict))


def without_answer(record: Record) -> float | None:
    """1 if the transcript has no answer or a blank one, else 0."""
    return float(not (record.transcript.answer or "").strip()) if _measured(record) else None


def truncated(record: Record) -> float | None:
    """1 if the completion ran into the token limit, else 0."""
    return float(record.completion.finish is Finish.LENGTH) if _measured(record) else None


_FULL_FORMAT = (Tag.THINK_OPEN, Tag.THINK_CLOSE, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE, Tag.ANSWER_OPEN)


def full_format(transcript: Transcript, *, min_boxes: int = 1) -> bool:
    """Whether the five tags stand once each and in order, the thought names a box and there is an answer.

    A closing answer tag may follow; no prompt asks for it. `min_boxes` is the number of boxes wanted in the thought.
    """
    tags = tuple(found.tag for found in transcript.tags)
    in_order = tags in (_FULL_FORMAT, (*_FULL_FORMAT, Tag.ANSWER_CLOSE))
    answered = bool((transcript.answer or "").strip())
    return in_order and answered and len(transcript.thought_pointings) >= min_boxes


def majority_answers(examples: Iterable[Example]) -> dict[str, str]:
    """The most frequent expected answer of each data set, normalised; a tie goes to the first in the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in {_key(example): example for example in examples}.values():
        counts[example.dataset][normalise(example.answer)] += 1
    return {dataset: min(found, key=lambda text: (-found[text], text)) for dataset, found in counts.items()}


def majority_control(records: Sequence[Record]) -> Quantity:
    """A quantity: 1 where the row's answer is its data set's most frequent one, on the records that have a verdict.

    Its mean is the accuracy of always giving that answer, chosen in hindsight on the very rows it is scored on.
    """
    majority = majority_answers(record.example for record in records if right(record) is not None)

    def always_the_majority(record: Record) -> float | None:
        if right(record) is None:
            return None
        return float(normalise(record.example.answer) == majority[record.example.dataset])

    return always_the_majority


# Means and intervals.


def estimate(
    records: Sequence[Record], quantity: Quantity, *, generator: np.random.Generator | None = None
) -> Estimate:
    """The mean of a quantity over the examples it applies to, each example weighing the same."""
    means = _example_means(records, quantity)
    return _bootstrap([means[key] for key in sorted(means)], generator)


def paired_difference(
    before: Sequence[Record],
    after: Sequence[Record],
    quantity: Quantity,
    *,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """The mean over examples of (after - before), on the examples measured on both sides.

    Records of several training seeds are pooled by handing them over together: the mean of an example is taken over
    its seeds, and the bootstrap draws whole examples. The interval says what other examples would give and not what
    other seeds would: show the seeds one by one beside it.
    """
    was, is_now = _example_means(before, quantity), _example_means(after, quantity)
    return _bootstrap([is_now[key] - was[key] for key in sorted(was.keys() & is_now.keys())], generator)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Examples turned right and turned wrong, and the exact two-sided probability of a split as uneven by chance."""

    improved: int
    worsened: int
    p: float


def mcnemar(before: Sequence[Record], after: Sequence[Record]) -> McNemar:
    """The exact McNemar test of right and wrong answers, on the examples judged on both sides.

    p is 1 when no example changed. Raises ValueError unless a side has at most one judged record an example, since
    repeated samples of one example are not independent.
    """
    from scipy.stats import binomtest

    was, is_now = _one_each(before), _one_each(after)
    changes = [is_now[key] - was[key] for key in was.keys() & is_now.keys()]
    improved, worsened = changes.count(1.0), changes.count(-1.0)
    changed = improved + worsened
    p = float(binomtest(improved, changed, 0.5).pvalue) if changed else 1.0
    return McNemar(improved=improved, worsened=worsened, p=p)


# Summaries.


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What the records of one data set, or of all together, say. Shares and scores are 0 to 1.

    `num_failed` rollouts are in `num_records` and in nothing else; `num_unjudged` have no verdict.
    """

    dataset: str
    num_records: int
    num_examples: int
    num_failed: int
    num_unjudged: int
    accuracy: Estimate  # the judge's raw score
    right: Estimate  # the score made binary
    majority_answer: Estimate  # control for accuracy
    grounding_iou: Estimate
    whole_picture_iou: Estimate  # control for grounding IoU
    follows_format: Estimate
    boxes_per_answer: Estimate
    count_error: Estimate  # boxes
    unjudged: Estimate
    without_answer: Estimate
    truncated: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """All records together ("all"), and each data set by name in alphabetical order."""

    overall: DatasetSummary
    by_dataset: dict[str, DatasetSummary]


def summarise(records: Sequence[Record], *, seed: int = BOOTSTRAP_SEED) -> Summary:
    """Every quantity of this module, overall and by data set. The order of the records does not matter.

    The records are those of one model under one prompt. Each interval starts its own generator from the seed, so it
    does not depend on which others are computed.
    """
    # The majority answer is each data set's own, overall too.
    majority = majority_control(records)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.example.dataset].append(record)
    return Summary(
        overall=_summarise_group("all", records, majority=majority, seed=seed),
        by_dataset={
            name: _summarise_group(name, groups[name], majority=majority, seed=seed)
            for name in sorted(groups)
        },
    )


def _summarise_group(
    name: str, records: Sequence[Record], *, majority: Quantity, seed: int
) -> DatasetSummary:
    def mean(quantity: Quantity) -> Estimate:
        return estimate(records, quantity, generator=np.random.default_rng(seed))

    return DatasetSummary(
        dataset=name,
        num_records=len(records),
        num_examples=len({_key(record.example) for record in records}),
        num_failed=sum(not _measured(record) for record in records),
        num_unjudged=sum(unjudged(record) == 1.0 for record in records),
        accuracy=mean(raw_score),
        right=mean(right),
        majority_answer=mean(majority),
        grounding_iou=mean(grounding_iou),
        whole_picture_iou=mean(whole_picture_iou),
        follows_format=mean(follows_format),
        boxes_per_answer=mean(num_boxes),
        count_error=mean(count_error),
        unjudged=mean(unjudged),
        without_answer=mean(without_answer),
        truncated=mean(truncated),
    )


_Key = tuple[str, str]  # an example's data set and id


def _key(example: Example) -> _Key:
    return example.dataset, example.id


def _measured(record: Record) -> bool:
    return record.failure is None


def _complete(record: Record) -> bool:
    return _measured(record) and record.completion.finish is not Finish.LENGTH


def _example_means(records: Sequence[Record], quantity: Quantity) -> dict[_Key, float]:
    values: dict[_Key, list[float]] = defaultdict(list)
    for record in records:
        value = quantity(record)
        if value is not None:
            values[_key(record.example)].append(value)
    return {key: math.fsum(found) / len(found) for key, found in values.items()}


def _one_each(records: Sequence[Record]) -> dict[_Key, float]:
    values: dict[_Key, float] = {}
    for record in records:
        value = right(record)
        if value is None:
            continue
        key = _key(record.example)
        if key in values:
            raise ValueError(
                f"McNemar's test takes one record an example, got several of {key[1]!r} in data set {key[0]!r}; "
                f"hand over one sample of one seed"
            )
        values[key] = value
    return values


def _bootstrap(values: Sequence[float], generator: np.random.Generator | None) -> Estimate:
    """The mean of the values and the percentile interval of resampled means (Efron 1979).

    Where all values are equal the interval has no width: it then says nothing about rarer values.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=None, n=0, low=None, high=None)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(value=mean, n=1, low=None, high=None)
    generator = np.random.default_rng(BOOTSTRAP_SEED) if generator is None else generator
    value_E = np.asarray(values, dtype=np.float64)  # E examples
    chunk = max(1, _DRAWS_AT_ONCE // n)
    sizes = [min(chunk, NUM_RESAMPLES - done) for done in range(0, NUM_RESAMPLES, chunk)]
    means = np.concatenate([value_E[generator.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])
    tail = 100.0 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return Estimate(value=mean, n=n, low=float(low), high=float(high))
