"""An answer that points: what a model said about a picture, its boxes in the picture's own pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError
from opengrit.core.escaping import encodable
from opengrit.core.types import Finish, Section, Transcript
from opengrit.grounding.frames import frame_for
from opengrit.grounding.prompts import Strategy
from opengrit.grounding.transcribing import transcribe
from opengrit.sampling import Sampled

# One question id for a Grounder and the server, so that the same seed samples the same tokens in both.
GROUND_ID = "ask"


@dataclass(frozen=True, slots=True)
class GroundedBox:
    """One pointing. `number` counts from 1 in the order of the text; `start` and `end` are character offsets in the text.

    `box` is in the unit square, `pixels` (left, top, right, bottom) in pixels of the given picture, upright.
    """

    number: int
    label: str | None
    section: Section
    box: Box
    pixels: tuple[float, float, float, float]
    start: int
    end: int


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What a model said about a picture. `answer` is None if it gave none; `seconds` is wall-clock time.

    In a notebook it displays itself: the picture with its boxes next to the text. `picture` is kept for that, a file's path or
    the picture itself; comparisons ignore it.

    `picture_size` is the size of the given picture (turned upright), `seen_size` the size that the model saw.
    A token count is None if unknown.
    """

    question: str
    answer: str | None
    transcript: Transcript
    boxes: tuple[GroundedBox, ...]
    picture_size: Size
    seen_size: Size
    finish: Finish
    seconds: float
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    picture: str | Image.Image | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        boxes = "1 box" if len(self.boxes) == 1 else f"{len(self.boxes)} boxes"
        return f"Answer({self.answer!r}, {boxes}, {self.seconds:.1f} s, model={self.model!r})"

    def _repr_html_(self) -> str | None:
        """The picture with numbered boxes and the text in the same colours, for a notebook; None without a picture."""
        from opengrit.inference.notebook import answer_in_notebook

        if self.picture is None:
            return None
        return answer_in_notebook(
            self.question,
            self.transcript,
            self.picture,
            picture_size=self.picture_size,
            model=self.model,
            seconds=self.seconds,
            completion_tokens=self.completion_tokens,
        )

    @property
    def text(self) -> str:
        """Everything the model wrote."""
        return self.transcript.text

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict; boxes are in picture pixels (to a hundredth) and in the unit square."""
        return {
            "question": self.question,
            "answer": self.answer,
            "transcript": self.text,
            "thought": self.transcript.thought,
            "rethink": self.transcript.rethink,
            "boxes": [
                {
                    "number": b.number,
                    "label": b.label,
                    "section": b.section.value,
                    "pixels": [round(n, 2) for n in b.pixels],
                    "unit": [round(n, 5) for n in (b.box.left, b.box.top, b.box.right, b.box.bottom)],
                    "start": b.start,
                    "end": b.end,
                }
                for b in self.boxes
            ],
            "rejected": [{"text": r.text, "reason": r.reason.value} for r in self.transcript.rejected],
            "finish": self.finish.value,
            "picture_size": [self.picture_size.width, self.picture_size.height],
            "seen_size": [self.seen_size.width, self.seen_size.height],
            "seconds": round(self.seconds, 3),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "model": self.model,
        }


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question of several that got no answer, and why: the picture is unreadable, the endpoint is down."""

    question: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {"question": self.question, "error": self.reason}


def read_answer(
    sampled: Sampled,
    *,
    question: str,
    picture_size: Size,
    strategy: Strategy | str,
    system: str | None = None,
    frame_name: str,
    seconds: float,
    model: str,
    picture: str | Image.Image | None = None,
) -> Answer:
    """The answer in what was sampled about a picture; nothing else makes an `Answer`.

    `frame_name` is a model type, or "pixels", "thousand" or "unit". Raises RecipeError for another name. Token
    counts come from the ids in `sampled`, where it has any, or from the endpoint that counted them.
    """
    frame = frame_for(frame_name, sampled.seen_size)
    transcript = transcribe(sampled.completion, strategy=strategy, frame=frame, system=system)
    boxes = tuple(
        GroundedBox(number, p.label, p.section, p.box, p.box.to_pixels(picture_size), p.start, p.end)
        for number, p in enumerate(transcript.pointings, start=1)
    )
    return Answer(
        question=question,
        answer=transcript.answer,
        transcript=transcript,
        boxes=boxes,
        picture_size=picture_size,
        seen_size=sampled.seen_size,
        finish=sampled.completion.finish,
        seconds=seconds,
        prompt_tokens=len(sampled.prompt_ids) or sampled.prompt_tokens,
        completion_tokens=len(sampled.completion.token_ids) or sampled.completion_tokens,
        model=model,
        picture=picture,
    )


def check_question(question: str) -> None:
    """Raise DataError for an empty question, or one with half a character."""
    if not isinstance(question, str) or not question.strip() or not encodable(question):
        raise DataError(f"a question is non-empty text, got {question!r}; write a question")
