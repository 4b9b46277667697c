"""Ask a sampler every question of a data set and keep the records; a broken-off evaluation goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

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

    With a run folder each record is written as soon as it is there, and records that stand in it already are not
    asked for again: the batches and their seeds are the same as in an evaluation that was not broken off.
    A picture that cannot be read is a record with `failure` set. Raises DataError where two examples share an id.
    """
    repeated = _first_repeated([example.id for example in examples])
    if repeated is not None:
        raise DataError(
            f"ids are unique in one evaluation, {repeated!r} stands more than once; name each file once, and give files different names"
        )
    wanted = {record_id(e, sample=i) for e in examples for i in range(samples_per_question)}
    done = {} if run is None else {record.id: record for record in run.records() if record.id in wanted}
    batches = [
        examples[start : start + questions_per_batch]
        for start in range(0, len(examples), questions_per_batch)
    ]
    writer = None if run is None else run.append_records()
    try:
        with _bar(quiet) as progress:
            task = progress.add_task("asking", total=len(wanted))
            for index, batch in enumerate(batches):
                ids = [record_id(e, sample=i) for e in batch for i in range(samples_per_question)]
                missing = [i for i in ids if i not in done]
                if missing:
                    groups = roll_out(
                        sampler,
                        batch,
                        exam=exam,
                        samples_per_question=samples_per_question,
                        settings=replace(settings, seed=settings.seed + index),
                    )
                    fresh = {record.id: record for group in groups for record in group}
                    for record_name in missing:
                        done[record_name] = fresh[record_name]
                        if writer is not None:
                            writer.write_record(fresh[record_name])
                progress.advance(task, len(ids))
    finally:
        if writer is not None:
            writer.close()
    return [done[record_id(e, sample=i)] for e in examples for i in range(samples_per_question)]


def _first_repeated(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None


def _bar(quiet: bool) -> Progress:
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
