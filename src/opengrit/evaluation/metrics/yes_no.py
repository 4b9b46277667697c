"""Yes/no questions: F1 and the share of yes (POPE), and both questions of a picture right (MME)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from opengrit.core.types import Example, Record
from opengrit.evaluation.metrics.estimates import Estimate, Quantity, estimate, mean_over_keys, ratio_of_sums
from opengrit.evaluation.metrics.quantities import is_complete, right
from opengrit.judges.answers import AnswerKind, answer_kind, normalise, said_yes_or_no


@dataclass(frozen=True, slots=True)
class YesNo:
    """What the answers to yes/no questions say, with "yes" as the positive class (POPE, arXiv 2305.10355).

    An answer that says neither, or both, is no "yes": it lowers recall where yes is right and is wrong elsewhere.
    (POPE's own script counts every answer without "no" or "not" as a yes, an empty one too.)
    """

    precision: Estimate  # right among those that say yes
    recall: Estimate  # say yes among those where yes is right
    f1: Estimate
    yes_share: Estimate  # say yes
    neither_share: Estimate  # say neither, or both

    @property
    def n(self) -> int:
        """How many examples ask for a yes or a no."""
        return self.yes_share.n


def yes_no(records: Sequence[Record]) -> YesNo:
    """Precision, recall, F1 and shares of the records whose expected answer is a plain yes or no.

    Yes and no are read from the answer by rule, whoever judged it. Truncated and failed records are left out.
    """
    says_yes = _where(lambda said, _: said == "yes")
    is_yes = _where(lambda _, expected: expected == "yes")
    both = _where(lambda said, expected: said == expected == "yes")
    return YesNo(
        precision=ratio_of_sums(records, both, says_yes),
        recall=ratio_of_sums(records, both, is_yes),
        f1=ratio_of_sums(records, _times(2.0, both), _plus(says_yes, is_yes)),
        yes_share=estimate(records, says_yes),
        neither_share=estimate(records, _where(lambda said, _: said is None)),
    )


def _where(holds: Callable[[str | None, str], bool]) -> Quantity:
    def quantity(record: Record) -> float | None:
        example = record.example
        if not is_complete(record) or answer_kind(example.answer, example.question) is not AnswerKind.YES_NO:
            return None
        return float(holds(said_yes_or_no(record.transcript.answer or ""), normalise(example.answer)))

    return quantity


def _times(factor: float, quantity: Quantity) -> Quantity:
    def product(record: Record) -> float | None:
        value = quantity(record)
        return None if value is None else factor * value

    return product


def _plus(one: Quantity, other: Quantity) -> Quantity:
    def total(record: Record) -> float | None:
        first, second = one(record), other(record)
        return None if first is None or second is None else first + second

    return total


@dataclass(frozen=True, slots=True)
class MmeRow:
    """One MME sub-task, or "all" of them together. Shares are 0 to 1; n of `accuracy_plus` counts pictures."""

    subtask: str
    accuracy: Estimate
    accuracy_plus: Estimate

    @property
    def score(self) -> float | None:
        """MME's own score, 0 to 200: per cent accuracy plus per cent accuracy+. None where either is missing."""
        if self.accuracy.value is None or self.accuracy_plus.value is None:
            return None
        return 100.0 * (self.accuracy.value + self.accuracy_plus.value)


def mme(*runs: Sequence[Record]) -> tuple[MmeRow, ...]:
    """Accuracy and accuracy+ of each sub-task (the `dataset` of a row) in alphabetical order, then of all together.

    A run is what one model of one training seed answered; several are pooled by picture. Records of other data sets
    (whose name does not start with "mme") are left out; no row at all where there is none.
    """
    runs = tuple([r for r in run if r.example.dataset.lower().startswith("mme")] for run in runs)
    subtasks = sorted({record.example.dataset for run in runs for record in run})
    rows = [
        _mme_row(subtask, [[r for r in run if r.example.dataset == subtask] for run in runs])
        for subtask in subtasks
    ]
    return (*rows, _mme_row("all", runs)) if rows else ()


def _mme_row(subtask: str, runs: Sequence[Sequence[Record]]) -> MmeRow:
    return MmeRow(
        subtask=subtask,
        accuracy=estimate([record for run in runs for record in run], right),
        accuracy_plus=accuracy_plus(*runs),
    )


_Picture = tuple[str, str]  # a data set and what names a picture in it


def accuracy_plus(*runs: Sequence[Record]) -> Estimate:
    """The share of pictures whose two questions are both answered right (MME, arXiv 2306.13394), n in pictures.

    A picture counts where both of its answers, of the same sample of the same run, were judged. Raises ValueError
    where one run has two records of the same sample of an example: hand over the runs of several seeds one by one.
    """
    examples = [record.example for run in runs for record in run]
    picture_of = _pictures(examples)
    return mean_over_keys(value for run in runs for value in _answers_by_picture(run, picture_of))


def _answers_by_picture(
    run: Sequence[Record], picture_of: Callable[[Example], _Picture]
) -> Iterator[tuple[_Picture, float]]:
    """For each picture and each sample that has both answers: 1 if both are right."""
    answers: dict[tuple[_Picture, int], dict[str, float | None]] = defaultdict(dict)
    for record in run:
        place = answers[picture_of(record.example), record.sample]
        if record.example.id in place:
            raise ValueError(
                f"accuracy+ takes one record of a sample, got several of {record.example.id!r} in one run; "
                "hand over the runs of several seeds one by one"
            )
        place[record.example.id] = right(record)
    for (picture, _), place in answers.items():
        values = [value for value in place.values() if value is not None]
        if len(values) == 2:
            yield picture, min(values)


def _pictures(examples: Sequence[Example]) -> Callable[[Example], _Picture]:
    """What identifies the picture of each of these examples.

    MME asks twice about each picture. In GRIT's release the picture is stored twice, once for each question, under
    numbers 2k and 2k + 1 (000860.png and 000861.png are one picture); elsewhere both questions name the same file.
    """
    questions = Counter((e.dataset, e.image) for e in {(e.dataset, e.id): e for e in examples}.values())
    asked_twice = {dataset for (dataset, _), count in questions.items() if count > 1}

    def picture_of(example: Example) -> _Picture:
        path = PurePath(example.image)
        if example.dataset in asked_twice or not (path.stem.isascii() and path.stem.isdigit()):
            return example.dataset, example.image
        return example.dataset, str(path.with_name(str(int(path.stem) // 2)))

    return picture_of
