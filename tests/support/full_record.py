"""Records for tests: one with something in every field, and one of any answer."""

from __future__ import annotations

from opengrit.core.boxes import Box, Size
from opengrit.core.types import (
    Completion,
    Example,
    Finish,
    FoundTag,
    Pointing,
    Record,
    RejectedPointing,
    Rejection,
    Score,
    Section,
    Tag,
    Transcript,
    Unjudged,
    Verdict,
)

TEXT = "<think>dog [10, 5, 30, 25]</think>"
RECORD = Record(
    id="3/mine:1#0",
    example=Example(
        id="mine:1",
        question="How many?",
        answer="1",
        image="a.png",
        dataset="tallyqa",
        picture_size=Size(200, 100),
        boxes=(Box(0.05, 0.05, 0.15, 0.25),),
        key_words=("dog",),
        split="train",
        also_accepted=("a dog",),
    ),
    strategy="grounded",
    sample=0,
    completion=Completion(TEXT, (5, 6, 7), Finish.LENGTH),
    transcript=Transcript(
        text=TEXT,
        thought="dog [10, 5, 30, 25]",
        rethink=None,
        answer=None,
        pointings=(
            Pointing(Box(0.1, 0.1, 0.3, 0.5), "dog", Section.THOUGHT, 11, 26, (10.0, 5.0, 30.0, 25.0)),
        ),
        rejected=(RejectedPointing("[3, 3, 1, 1]", Rejection.REVERSED, Section.OUTSIDE, 40, 52),),
        tags=(FoundTag(Tag.THINK_OPEN, 0, 7), FoundTag(Tag.THINK_CLOSE, 26, 34)),
        finish=Finish.LENGTH,
    ),
    verdict=Verdict(correct=False, score=0.0),
    score=Score(total=0.5, parts={"tag_pairs": 0.5, "box_count": None}),
    seen_size=Size(100, 50),
    frame="qwen2_5_vl",
    step=3,
    advantage=-0.7071067811865475,
)


def record_of(
    example: Example,
    transcript: Transcript,
    *,
    verdict: Verdict | Unjudged,
    score: Score,
    frame: str,
    sample: int = 0,
    failure: str | None = None,
) -> Record:
    """The record of one answer, to a picture that the model saw in its own size."""
    return Record(
        id=f"{example.id}#{sample}",
        example=example,
        strategy="grounded",
        sample=sample,
        completion=Completion(transcript.text, (), transcript.finish),
        transcript=transcript,
        verdict=verdict,
        score=score,
        seen_size=example.picture_size,
        frame=frame,
        failure=failure,
    )
