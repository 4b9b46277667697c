"""Ask a sampler every question of a data set and keep the records; an unfinished evaluation resumes where it stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from queue import SimpleQueue

from opengrit.core.errors import OpenGritError
from opengrit.core.progress import progress_bar
from opengrit.core.types import Example, Record
from opengrit.data.sources import require_unique_ids
from opengrit.evaluation.continuing import check_answered, with_rows_of_now
from opengrit.evaluation.rollout import (
    EvaluationProtocol,
    case_of,
    judged,
    judged_again,
    judged_anew,
    record_id,
    roll_out,
)
from opengrit.judges import RuleJudge, judge_cases
from opengrit.judges.agreement import Agreement, agreement
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampler, SamplingSettings


def evaluate(
    sampler: Sampler,
    examples: Sequence[Example],
    *,
    protocol: EvaluationProtocol,
    settings: SamplingSettings,
    run: RunDir | None = None,
    samples_per_question: int = 1,
    questions_per_batch: int = 16,
    more_samplers: Sequence[Sampler] = (),
    judge_again: bool = False,
    quiet: bool = False,
) -> list[Record]:
    """The records of every example, in the order of the examples, samples of an example together.

    With a run folder each record is written as soon as it is there, and a question whose records it holds already is not
    asked again: a sampler's completions do not depend on what is sampled with them, so the result is that of an
    uninterrupted evaluation. A question that failed (its picture could not be read, the endpoint was
    down) is a record with `failure` set; it is asked again when the evaluation is continued, and its later record
    counts. An answer that its judge could not judge is judged again then, and not asked again. `more_samplers` are further
    samplers that answer as `sampler` does: batches are sampled by all at once, and written in the order of the examples.
    `judge_again` judges every kept answer once more, by its row as it is now.
    Raises DataError where two examples share an id, RunError where the run's answers are to other rows (but for their
    annotation with `judge_again`), and what a sampler raises after the other batches under way are written.
    """
    require_unique_ids(examples)

    def ids_of(example: Example) -> list[str]:
        return [record_id(example, sample=i) for i in range(samples_per_question)]

    wanted = {name: example for example in examples for name in ids_of(example)}
    known = [] if run is None else list(run.records())
    if run is not None:
        check_answered(run.path, known, examples, samples=samples_per_question, judge_again=judge_again)
    done = {record.id: record for record in known if record.failure is None}
    pending = [example for example in examples if any(name not in done for name in ids_of(example))]
    writer = None if run is None else run.append_records()
    try:
        with progress_bar(quiet) as progress:
            task = progress.add_task("asking", total=len(examples), completed=len(examples) - len(pending))
            kept = [with_rows_of_now(record, wanted[name]) for name, record in done.items()]
            if judge_again:
                again = judged_anew(kept, protocol=protocol)
            else:
                again = chain(kept, judged_again(kept, protocol=protocol))
            for record in again:
                if record != done[record.id]:
                    done[record.id] = record
                    if writer is not None:
                        writer.write_record(record)
            # Fewer than asked for where a sampler would get none.
            each = max(1, min(questions_per_batch, -(-len(pending) // (1 + len(more_samplers)))))
            batches = [pending[start : start + each] for start in range(0, len(pending), each)]

            def sample(one: Sampler, batch: Sequence[Example]) -> list[list[Record]]:
                return roll_out(
                    one,
                    batch,
                    protocol=protocol,
                    samples_per_question=samples_per_question,
                    settings=settings,
                )

            for groups in _sampled((sampler, *more_samplers), batches, sample):
                sampled = [record for group in groups for record in group]
                for record in judged([r for r in sampled if r.id not in done], protocol=protocol):
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
    rule = judge_cases(RuleJudge(), [case for _, case in asked])
    return agreement(rule, [record.verdict for record, _ in asked])


def _sampled(
    samplers: Sequence[Sampler],
    batches: Sequence[Sequence[Example]],
    sample: Callable[[Sampler, Sequence[Example]], list[list[Record]]],
) -> Iterator[list[list[Record]]]:
    """What is sampled for each batch, in the order of the batches; a sampler that is free takes the next one.

    After an error nothing is started, and what is under way is still given before the error is raised.
    """
    if len(samplers) == 1:
        yield from (sample(samplers[0], batch) for batch in batches)
        return
    free: SimpleQueue[Sampler] = SimpleQueue()
    for sampler in samplers:
        free.put(sampler)

    def work(batch: Sequence[Example]) -> list[list[Record]]:
        sampler = free.get()
        try:
            return sample(sampler, batch)
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
