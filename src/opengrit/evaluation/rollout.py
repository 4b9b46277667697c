"""One rollout: ask, parse, judge, score; a completion and its score as a `Record`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from opengrit.core.errors import RewardError
from opengrit.core.escaping import join_surrogates
from opengrit.core.types import Completion, Example, Finish, Record, Score, Unjudged, Verdict
from opengrit.grounding.frames import frame_for
from opengrit.grounding.prompts import strategy_named, user_text
from opengrit.grounding.transcribing import transcribe
from opengrit.judges import BatchJudge, Case, judge_cases, verdict_or_case
from opengrit.rewards.protocol import Attempt, SecondAnswers
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled, settings_of_each

TRUNCATED = "truncated at the token limit"
_JUDGED_AT_ONCE = 256  # records of an earlier evaluation; each such batch is written
NOT_YET = Unjudged("not judged yet")


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """How questions are put and answers are read: the prompt's name, the frame's name, the judge and the rewards.

    A prompt of the user's own is read when the protocol is made; `system` is the text of a turn before the question's.
    """

    strategy: str
    frame: str  # a model type, or "pixels", "thousand" or "unit"
    judge: BatchJudge
    rubric: Rubric
    system: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", strategy_named(self.strategy))


def ask(example: Example, *, protocol: EvaluationProtocol) -> Asked:
    """The example's question in the wording of the protocol's strategy."""
    text = user_text(protocol.strategy, example.question, family=protocol.frame)
    return Asked(example.id, example.image, text, protocol.system)


def transcribed(
    example: Example,
    sampled: Sampled | Unsampled,
    *,
    protocol: EvaluationProtocol,
    sample: int,
    step: int | None = None,
) -> Record:
    """The record of one completion, parsed and not yet judged.

    What could not be sampled is a record with `failure` set. The verdict is `NOT_YET`; `with_verdicts` sets and
    scores it.
    """
    failure: str | None = None
    match sampled:
        case Unsampled(reason=reason):
            completion, seen_size, failure = Completion(""), example.picture_size, reason
        case Sampled():
            written, seen_size = sampled.completion, sampled.seen_size
            completion = replace(written, text=join_surrogates(written.text))
    return Record(
        id=record_id(example, sample=sample, step=step),
        example=example,
        strategy=str(protocol.strategy),
        sample=sample,
        completion=completion,
        transcript=transcribe(
            completion,
            strategy=protocol.strategy,
            frame=frame_for(protocol.frame, seen_size),
            system=protocol.system,
        ),
        verdict=NOT_YET,
        score=Score(total=None),
        seen_size=seen_size,
        frame=protocol.frame,
        step=step,
        failure=failure,
    )


def case_of(record: Record) -> Case | None:
    """What is put before a judge for a record; None where the verdict needs none: what failed or is truncated has
    no verdict, a missing answer is wrong, and a box is measured by grounding IoU.
    """
    known = _verdict_or_case(record)
    return known if isinstance(known, Case) else None


def awaits_verdict(record: Record) -> bool:
    """Whether a judge is to be asked about a record (again): none has judged it, and not for want of an answer."""
    return isinstance(record.verdict, Unjudged) and case_of(record) is not None


def _verdict_or_case(record: Record) -> Verdict | Unjudged | Case:
    if record.failure is not None:
        return Unjudged(record.failure)
    if record.completion.finish is Finish.LENGTH:
        return Unjudged(TRUNCATED)
    return verdict_or_case(record.example, record.transcript)


def scored(
    records: Sequence[Record], *, rubric: Rubric, second: Sequence[SecondAnswers] | None = None
) -> list[Record]:
    """The records with the scores that follow from their verdicts, and from their `second` answers where those were asked.

    What failed has no score. A truncated completion keeps the parts of its score and has no total: what it would
    have come to is not known. Raises RewardError where a reward breaks its spec.
    """
    again: Sequence[SecondAnswers | None] = second if second is not None else [None] * len(records)
    attempts = [
        Attempt(r.example, r.completion, r.transcript, r.verdict, r.step, answers)
        for r, answers in zip(records, again, strict=True)
        if r.failure is None
    ]
    scores = iter(rubric.score_all(attempts) if attempts else ())
    found = []
    for record in records:
        if record.failure is not None:
            score = Score(total=None, missing=record.failure)
        else:
            score = next(scores)
            if record.completion.finish is Finish.LENGTH:
                score = Score(total=None, parts=score.parts, missing=TRUNCATED)
        found.append(replace(record, score=score))
    return found


def with_verdicts(
    records: Sequence[Record], opinions: Sequence[Verdict | Unjudged], *, rubric: Rubric
) -> list[Record]:
    """The records judged and scored, as `settled` and `scored` do it."""
    return scored(settled(records, opinions), rubric=rubric)


def settled(records: Sequence[Record], opinions: Sequence[Verdict | Unjudged]) -> list[Record]:
    """The records with their verdicts; `opinions` are those on the cases of the records that have one, in order.

    Raises RewardError where there are not as many opinions as cases.
    """
    settlements = [_verdict_or_case(record) for record in records]
    num_cases = sum(isinstance(known, Case) for known in settlements)
    if len(opinions) != num_cases:
        raise RewardError(
            f"a judge gives one opinion for each case, got {len(opinions)} for {num_cases} from {records[0].id} on; fix "
            "the judge"
        )
    rest = iter(opinions)
    verdicts = [next(rest) if isinstance(known, Case) else known for known in settlements]
    return [replace(record, verdict=verdict) for record, verdict in zip(records, verdicts, strict=True)]


def judged(
    records: Sequence[Record], *, protocol: EvaluationProtocol, deadline_seconds: float | None = None
) -> list[Record]:
    """The records, judged together and scored. What is not judged within the deadline is `Unjudged`."""
    cases = [case for record in records if (case := case_of(record)) is not None]
    opinions = judge_cases(protocol.judge, cases, deadline_seconds=deadline_seconds) if cases else []
    return with_verdicts(records, opinions, rubric=protocol.rubric)


def judged_again(records: Sequence[Record], *, protocol: EvaluationProtocol) -> Iterator[Record]:
    """The records that no judge could judge before and that are judged now, some at a time."""
    waiting = [record for record in records if awaits_verdict(record)]
    for start in range(0, len(waiting), _JUDGED_AT_ONCE):
        again = judged(waiting[start : start + _JUDGED_AT_ONCE], protocol=protocol)
        yield from (record for record in again if isinstance(record.verdict, Verdict))


def judged_anew(records: Sequence[Record], *, protocol: EvaluationProtocol) -> Iterator[Record]:
    """All the records judged once more, some at a time. Where the judge cannot judge now, a verdict that is there stays."""
    for start in range(0, len(records), _JUDGED_AT_ONCE):
        before = records[start : start + _JUDGED_AT_ONCE]
        for old, new in zip(before, judged(before, protocol=protocol), strict=True):
            keeps = isinstance(old.verdict, Verdict) and isinstance(new.verdict, Unjudged)
            yield old if keeps else new


def read(
    example: Example,
    sampled: Sampled | Unsampled,
    *,
    protocol: EvaluationProtocol,
    sample: int,
    step: int | None = None,
) -> Record:
    """The record of one completion: parsed, judged and scored."""
    return judged(
        [transcribed(example, sampled, protocol=protocol, sample=sample, step=step)], protocol=protocol
    )[0]


def record_id(example: Example, *, sample: int, step: int | None = None) -> str:
    """A record's id: "<example id>#<sample>", with "<step>/" in front while training."""
    own = f"{example.id}#{sample}"
    return own if step is None else f"{step}/{own}"


def roll_out(
    sampler: Sampler,
    examples: Sequence[Example],
    *,
    protocol: EvaluationProtocol,
    samples_per_question: int,
    settings: SamplingSettings | Sequence[SamplingSettings],
    step: int | None = None,
) -> list[list[Record]]:
    """`samples_per_question` records for each example, in the order of the examples; parsed, and not yet judged.

    `settings` are for all of them, or one for each; samples are numbered from their `first_sample`.
    """
    questions = [ask(example, protocol=protocol) for example in examples]
    first = [own.first_sample for own in settings_of_each(settings, count=len(questions))]
    groups = sampler.sample(questions, samples_per_question=samples_per_question, settings=settings)
    return [
        [
            transcribed(example, sampled, protocol=protocol, sample=i, step=step)
            for i, sampled in enumerate(group, start)
        ]
        for example, group, start in zip(examples, groups, first, strict=True)
    ]
