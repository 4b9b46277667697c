"""Ask a sampler every question of a data set and keep the records; a broken-off evaluation goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from opengrit.errors import DataError
from opengrit.rollout import Exam, record_id, roll_out
from opengrit.rundir import RunDir
from opengrit.samplers import Sampler, SamplingSettings
from opengrit.types import Example, Record


def evaluate(
    sampler: Sampler,
    examples: Sequence[Example],
    *,
    exam: Exam,
    settings: SamplingSettings,
    run: RunDir | None = None,
    samples_per_question: int = 1,
    questions_per_batch: int = 16,
    quiet: bool = False,
) -> list[Record]:
    """The records of every example, in the order of the examples, samples of an example together.

    With a run folder each record is written as soon as it is there, and a question whose records stand in it already is
    not asked again: a sampler's completions do not depend on what they are drawn beside, so the result is that of an
    evaluation that was not broken off. A question that failed (its picture could not be read, the endpoint was
    down) is a record with `failure` set; it is asked again when the evaluation is continued, and its later record
    counts. Raises DataError where two examples share an id.
    """
    repeated = _first_repeated([example.id for example in examples])
    if repeated is not None:
        raise DataError(
            f"ids are unique in one evaluation, {repeated!r} stands more than once; name each file once, and give files different names"
        )

    def ids_of(example: Example) -> list[str]:
        return [record_id(example, sample=i) for i in range(samples_per_question)]

    wanted = {name for example in examples for name in ids_of(example)}
    known = () if run is None else run.records()
    done = {record.id: record for record in known if record.id in wanted and record.failure is None}
    pending = [example for example in examples if any(name not in done for name in ids_of(example))]
    writer = None if run is None else run.append_records()
    try:
        with progress_bar(quiet) as progress:
            task = progress.add_task("asking", total=len(examples), completed=len(examples) - len(pending))
            for start in range(0, len(pending), questions_per_batch):
                batch = pending[start : start + questions_per_batch]
                groups = roll_out(
                    sampler,
                    batch,
                    exam=exam,
                    samples_per_question=samples_per_question,
                    settings=settings,
                )
                for record in (record for group in groups for record in group):
                    if record.id in done:  # a sibling of a sample that is missing
                        continue
                    done[record.id] = record
                    if writer is not None:
                        writer.write_record(record)
                progress.advance(task, len(batch))
    finally:
        if writer is not None:
            writer.close()
    return [done[name] for example in examples for name in ids_of(example)]


def _first_repeated(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None


def progress_bar(quiet: bool) -> Progress:
    """A progress bar on standard error; silent where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
