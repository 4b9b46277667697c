"""Ask a sampler every question of a data set and keep the records; a broken-off evaluation goes on where it stopped."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from opengrit.core.errors import DataError, OpenGritError
from opengrit.core.types import Example, Record, Verdict
from opengrit.evaluation.rollout import (
    EvaluationProtocol,
    awaits_verdict,
    case_of,
    judged,
    record_id,
    roll_out,
)
from opengrit.judges import RuleJudge
from opengrit.judges.agreement import Agreement, agreement
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampler, SamplingSettings

_JUDGED_AT_ONCE = 256  # records of an earlier evaluation that are judged again; each such batch is written


def evaluate(
    sampler: Sampler,
    examples: Sequence[Example],
    *,
    protocol: EvaluationProtocol,
    settings: SamplingSettings,
    run: RunDir | None = None,
    samples_per_question: int = 1,
    questions_per_batch: int = 16,
    beside: Sequence[Sampler] = (),
    quiet: bool = False,
) -> list[Record]:
    """The records of every example, in the order of the examples, samples of an example together.

    With a run folder each record is written as soon as it is there, and a question whose records stand in it already is
    not asked again: a sampler's completions do not depend on what they are drawn beside, so the result is that of an
    evaluation that was not broken off. A question that failed (its picture could not be read, the endpoint was
    down) is a record with `failure` set; it is asked again when the evaluation is continued, and its later record
    counts. An answer that its judge could not judge is judged again then, and not asked again. `beside` are further
    samplers that answer as `sampler` does: batches are drawn by all at once, and written in the order of the examples.
    Raises DataError where two examples share an id, and what a sampler raises after the other batches under way are
    written.
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
            for record in _judged_again([done[name] for name in done], protocol=protocol):
                done[record.id] = record
                if writer is not None:
                    writer.write_record(record)
            each = _questions_of_a_batch(len(pending), questions_per_batch, samplers=1 + len(beside))
            batches = [pending[start : start + each] for start in range(0, len(pending), each)]

            def draw(one: Sampler, batch: Sequence[Example]) -> list[list[Record]]:
                return roll_out(
                    one,
                    batch,
                    protocol=protocol,
                    samples_per_question=samples_per_question,
                    settings=settings,
                )

            for groups in _drawn((sampler, *beside), batches, draw):
                drawn = [record for group in groups for record in group]
                for record in judged([r for r in drawn if r.id not in done], protocol=protocol):
                    done[record.id] = record
                    if writer is not None:
                        writer.write_record(record)
                progress.advance(task, len(groups))
    finally:
        if writer is not None:
            writer.close()
    return [done[name] for example in examples for name in ids_of(example)]


def agreement_with_rule(records: Sequence[Record]) -> Agreement:
    """How far the rule agrees with the verdicts of these records, over the answers that are put before a judge."""
    asked = [(record, case) for record in records if (case := case_of(record)) is not None]
    rule = RuleJudge().judge_many([case for _, case in asked])
    return agreement(rule, [record.verdict for record, _ in asked])


def _judged_again(records: Sequence[Record], *, protocol: EvaluationProtocol) -> Iterator[Record]:
    """The records that a judge could not judge before and can now."""
    waiting = [record for record in records if awaits_verdict(record)]
    for start in range(0, len(waiting), _JUDGED_AT_ONCE):
        again = judged(waiting[start : start + _JUDGED_AT_ONCE], protocol=protocol)
        yield from (record for record in again if isinstance(record.verdict, Verdict))


def _questions_of_a_batch(pending: int, most: int, *, samplers: int) -> int:
    """As many as asked for, but fewer where a sampler would get none."""
    return max(1, min(most, -(-pending // samplers)))


def _drawn(
    samplers: Sequence[Sampler],
    batches: Sequence[Sequence[Example]],
    draw: Callable[[Sampler, Sequence[Example]], list[list[Record]]],
) -> Iterator[list[list[Record]]]:
    """What is drawn of each batch, in the order of the batches; a sampler that is free takes the next one.

    After an error nothing is begun, and what is under way is still given before the error is raised.
    """
    if len(samplers) == 1:
        yield from (draw(samplers[0], batch) for batch in batches)
        return
    free: SimpleQueue[Sampler] = SimpleQueue()
    for sampler in samplers:
        free.put(sampler)

    def work(batch: Sequence[Example]) -> list[list[Record]]:
        sampler = free.get()
        try:
            return draw(sampler, batch)
        finally:
            free.put(sampler)

    rest = iter(batches)
    waiting: deque[Future[list[list[Record]]]] = deque()
    failed: OpenGritError | None = None
    threads = ThreadPoolExecutor(len(samplers), thread_name_prefix="opengrit-asking")
    try:
        while True:
            while failed is None and len(waiting) < 2 * len(samplers) and (batch := next(rest, ())):
                waiting.append(threads.submit(work, batch))
            if not waiting:
                break
            try:
                groups = waiting.popleft().result()
            except OpenGritError as error:
                failed = failed or error
                waiting = deque(future for future in waiting if not future.cancel())
                continue
            yield groups
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    if failed is not None:
        raise failed


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
