"""One rollout: ask, parse, judge, score. Everything a completion is worth, as a `Record`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from opengrit.boxes import Size
from opengrit.frames import UNIT_BY_MODEL_TYPE, Frame
from opengrit.judge import Judge, judge_transcript
from opengrit.parsing import parse
from opengrit.prompts import Strategy, user_text
from opengrit.rewards import Attempt, Rubric
from opengrit.samplers import Asked, Sampled, Sampler, SamplingSettings, Unsampled
from opengrit.types import Completion, Example, Finish, Record, Score, Transcript, Unjudged, Verdict

TRUNCATED = "truncated at the token limit"


@dataclass(frozen=True, slots=True)
class Exam:
    """How questions are put and answers are read: the prompt's name, the frame's name, the judge and the rewards."""

    strategy: str
    frame: str  # a model type, or "pixels", "thousand" or "unit"
    judge: Judge
    rubric: Rubric


def ask(example: Example, *, exam: Exam) -> Asked:
    """The example's question in the wording of the exam's strategy."""
    return Asked(example.id, example.image, user_text(exam.strategy, example.question, family=exam.frame))


def frame_for(name: str, seen_size: Size) -> Frame:
    """The frame of a model type, or of a unit that a recipe names. Raises RecipeError for another name."""
    if name in UNIT_BY_MODEL_TYPE:
        return Frame.for_model_type(name, seen_size=seen_size)
    return Frame.named(name, seen_size=seen_size)


def transcribe(completion: Completion, *, strategy: Strategy | str, frame: Frame) -> Transcript:
    """The completion, read. Under the direct prompt, which asks for no tags, a text without them is the answer."""
    transcript = parse(completion.text, frame, completion.finish)
    if strategy == Strategy.DIRECT and transcript.answer is None:
        return replace(transcript, answer=completion.text.strip())
    return transcript


def read(
    example: Example, sampled: Sampled | Unsampled, *, exam: Exam, sample: int, step: int | None = None
) -> Record:
    """The record of one completion: parsed, judged and scored.

    What could not be sampled is a record with `failure` set, no score and no verdict. A truncated completion keeps the
    parts of its score and has neither total nor verdict: what it would have come to is not known.
    """
    failure: str | None = None
    match sampled:
        case Unsampled(reason=reason):
            completion, seen_size, failure = Completion(""), example.picture_size, reason
        case Sampled():
            completion, seen_size = sampled.completion, sampled.seen_size
    transcript = transcribe(completion, strategy=exam.strategy, frame=frame_for(exam.frame, seen_size))
    verdict: Verdict | Unjudged
    if failure is not None:
        verdict, score = Unjudged(failure), Score(total=None, missing=failure)
    elif completion.finish is Finish.LENGTH:
        verdict = Unjudged(TRUNCATED)
        parts = exam.rubric.score(Attempt(example, completion, transcript, verdict)).parts
        score = Score(total=None, parts=parts, missing=TRUNCATED)
    else:
        verdict = judge_transcript(exam.judge, example, transcript)
        score = exam.rubric.score(Attempt(example, completion, transcript, verdict))
    return Record(
        id=record_id(example, sample=sample, step=step),
        example=example,
        strategy=exam.strategy,
        sample=sample,
        completion=completion,
        transcript=transcript,
        verdict=verdict,
        score=score,
        seen_size=seen_size,
        frame=exam.frame,
        step=step,
        failure=failure,
    )


def record_id(example: Example, *, sample: int, step: int | None = None) -> str:
    """A record's id: "<example id>#<sample>", with "<step>/" in front while training."""
    own = f"{example.id}#{sample}"
    return own if step is None else f"{step}/{own}"


def roll_out(
    sampler: Sampler,
    examples: Sequence[Example],
    *,
    exam: Exam,
    samples_per_question: int,
    settings: SamplingSettings,
    step: int | None = None,
) -> list[list[Record]]:
    """`samples_per_question` records for each example, in the order of the examples."""
    questions = [ask(example, exam=exam) for example in examples]
    groups = sampler.sample(questions, samples_per_question=samples_per_question, settings=settings)
    return [
        [read(example, sampled, exam=exam, sample=i, step=step) for i, sampled in enumerate(group)]
        for example, group in zip(examples, groups, strict=True)
    ]
