"""Means over examples with their 95 % bootstrap intervals, ratios, paired differences, and seeds side by side."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, TypeVar

import numpy as np

from opengrit.core.types import Example, Record


class AboutExample(Protocol):
    """What says something of one example: a record, or a trial of its boxes."""

    @property
    def example(self) -> Example: ...


One = TypeVar("One", bound=AboutExample)
Quantity = Callable[[Record], float | None]
ExampleKey = tuple[str, str]  # an example's data set and id

BOOTSTRAP_SEED = 2505
NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
_INDICES_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap to about 32 MB
# From so many examples on a resample is not sampled index by index: 2,000 of 50,000 are 100 million draws a quantity.
MANY_EXAMPLES = 5_000
_FEW_VALUES = 64
_ROUNDING = 1e-9  # a mean of differences that add up to 0 may come out as 1e-18


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
    def above_zero(self) -> bool:
        """Whether the interval exists and lies above 0, by more than a mean's rounding."""
        return self.low is not None and self.low > _ROUNDING

    @property
    def below_zero(self) -> bool:
        """Whether the interval exists and lies below 0, by more than a mean's rounding."""
        return self.high is not None and self.high < -_ROUNDING

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval exists and does not hold 0."""
        return self.above_zero or self.below_zero


NOTHING = Estimate(value=None, n=0, low=None, high=None)


def key_of(example: Example) -> ExampleKey:
    """What makes an example one: its data set and its id."""
    return example.dataset, example.id


def seeded_generator(seed: int, *parts: str | int) -> np.random.Generator:
    """A generator that depends on the seed and on these names and numbers alone."""
    numbers = [zlib.crc32(p.encode("utf-8", "surrogatepass")) if isinstance(p, str) else p for p in parts]
    return np.random.default_rng([seed, *numbers])


def estimate(
    records: Sequence[One],
    quantity: Callable[[One], float | None],
    *,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """The mean of a quantity over the examples it applies to, each example weighing the same."""
    return mean_over_keys(((key_of(r.example), quantity(r)) for r in records), generator=generator)


def mean_over_keys(
    values: Iterable[tuple[ExampleKey, float | None]], *, generator: np.random.Generator | None = None
) -> Estimate:
    """The mean over keys (examples, pictures) of values that are first averaged for each key; None is left out."""
    means = _means_by_key(values)
    return mean_of([means[key] for key in sorted(means)], generator=generator)


def paired_difference(
    before: Sequence[One],
    after: Sequence[One],
    quantity: Callable[[One], float | None],
    *,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """The mean over examples of (after - before), on the examples measured on both sides.

    Records of several training seeds are pooled by handing them over together: the mean of an example is taken over
    its seeds, and the bootstrap samples whole examples. The interval says what other examples would give and not what
    other seeds would: show the seeds one by one with it.
    """
    was, is_now = _example_means(before, quantity), _example_means(after, quantity)
    differences = [is_now[key] - was[key] for key in sorted(was.keys() & is_now.keys())]
    return mean_of(differences, generator=generator)


def ratio_of_sums(
    records: Sequence[Record],
    numerator: Quantity,
    denominator: Quantity,
    *,
    generator: np.random.Generator | None = None,
) -> Estimate:
    """The sum of one quantity over the sum of another, over the examples both apply to: precision, recall, F1.

    A resample whose denominators sum to 0 says nothing and is left out of the interval. Where all of them do, the
    ratio does not exist: `value` is None and n is 0.
    """
    above, below = _example_means(records, numerator), _example_means(records, denominator)
    keys = sorted(above.keys() & below.keys())
    total = math.fsum(below[key] for key in keys)
    if total == 0.0:
        return NOTHING
    value = math.fsum(above[key] for key in keys) / total
    if len(keys) == 1:
        return Estimate(value=value, n=1, low=None, high=None)
    above_E, below_E = np.array([above[key] for key in keys]), np.array([below[key] for key in keys])
    sums = [
        (above_E[picked].sum(axis=1), below_E[picked].sum(axis=1))
        for picked in _resamples(len(keys), generator)
    ]
    ratios = np.concatenate([a[b != 0.0] / b[b != 0.0] for a, b in sums])
    return _with_interval(value, len(keys), ratios)


def mean_of(values: Sequence[float], *, generator: np.random.Generator | None = None) -> Estimate:
    """The mean of the values and the percentile interval of resampled means (Efron 1979).

    Where all values are equal the interval has no width: it then says nothing about rarer values. From 5,000 examples on
    the counts of a resample's values are drawn at once where there are at most 64 different ones (the same distribution),
    and elsewhere the interval is that of the normal distribution which resampled means tend to; the difference is
    smaller than what 2,000 resamples leave to chance.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(value=mean, n=1, low=None, high=None)
    value_E = np.asarray(values, dtype=np.float64)  # E examples
    if n >= MANY_EXAMPLES:
        return _of_many(mean, value_E, generator)
    return _with_interval(
        mean, n, np.concatenate([value_E[picked].mean(axis=1) for picked in _resamples(n, generator)])
    )


@dataclass(frozen=True, slots=True)
class Pooled:
    """A quantity over several training seeds: pooled by example, and each seed by itself.

    `spread` is the standard deviation of the seeds' means (n - 1 in the denominator), None below two seeds. The
    pooled interval says what other examples would give; the spread says what other seeds would.
    """

    pooled: Estimate
    seeds: tuple[Estimate, ...]
    spread: float | None


def pool_seeds(runs: Sequence[Sequence[One]], quantity: Callable[[One], float | None]) -> Pooled:
    """A quantity over the records of each training seed: all together, one by one, and how far they lie apart."""
    seeds = tuple(estimate(run, quantity) for run in runs)
    values = [seed.value for seed in seeds if seed.value is not None]
    return Pooled(
        pooled=estimate([record for run in runs for record in run], quantity),
        seeds=seeds,
        spread=float(np.std(values, ddof=1)) if len(values) >= 2 else None,
    )


@dataclass(frozen=True, slots=True)
class McNemar:
    """Examples turned right and turned wrong, and the exact two-sided probability of a split as uneven by chance."""

    improved: int
    worsened: int
    p: float


def exact_mcnemar(was: dict[ExampleKey, float], is_now: dict[ExampleKey, float]) -> McNemar:
    """The exact McNemar test of answers that are 1 or 0, on the examples of both sides; p is 1 if none changed."""
    from scipy.stats import binomtest

    changes = [is_now[key] - was[key] for key in was.keys() & is_now.keys()]
    improved, worsened = changes.count(1.0), changes.count(-1.0)
    changed = improved + worsened
    p = float(binomtest(improved, changed, 0.5).pvalue) if changed else 1.0
    return McNemar(improved=improved, worsened=worsened, p=p)


def _example_means(
    records: Sequence[One], quantity: Callable[[One], float | None]
) -> dict[ExampleKey, float]:
    return _means_by_key((key_of(record.example), quantity(record)) for record in records)


def _means_by_key(values: Iterable[tuple[ExampleKey, float | None]]) -> dict[ExampleKey, float]:
    found: dict[ExampleKey, list[float]] = defaultdict(list)
    for key, value in values:
        if value is not None:
            found[key].append(value)
    return {key: math.fsum(numbers) / len(numbers) for key, numbers in found.items()}


def _resamples(n: int, generator: np.random.Generator | None) -> Iterator[np.ndarray]:
    """Indices of NUM_RESAMPLES resamples of n examples, in chunks of shape (resamples, n)."""
    generator = np.random.default_rng(BOOTSTRAP_SEED) if generator is None else generator
    chunk = max(1, _INDICES_AT_ONCE // n)
    for done in range(0, NUM_RESAMPLES, chunk):
        yield generator.integers(0, n, size=(min(chunk, NUM_RESAMPLES - done), n))


def _of_many(mean: float, value_E: np.ndarray, generator: np.random.Generator | None) -> Estimate:
    """The estimate of many values without their resamples' indices; see `mean_of`."""
    n = len(value_E)
    distinct_V, count_V = np.unique(value_E, return_counts=True)
    if len(distinct_V) <= _FEW_VALUES:
        generator = np.random.default_rng(BOOTSTRAP_SEED) if generator is None else generator
        counts_RV = generator.multinomial(n, count_V / n, size=NUM_RESAMPLES)  # R resamples, V values
        return _with_interval(mean, n, counts_RV @ distinct_V / n)
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * float(value_E.std()) / math.sqrt(n)
    return Estimate(value=mean, n=n, low=mean - half, high=mean + half)


def _with_interval(value: float, n: int, resampled: np.ndarray) -> Estimate:
    tail = 100.0 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(resampled, [tail, 100.0 - tail])
    return Estimate(value=value, n=n, low=float(low), high=float(high))
