"""Ask a picture a question and get an answer that points, with boxes in the picture's own pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from opengrit.boxes import Size
from opengrit.errors import DataError, ImageError
from opengrit.images import encodable, picture_size
from opengrit.prompts import Strategy, strategy_named, user_text
from opengrit.rollout import frame_for, transcribe
from opengrit.samplers import Asked, Sampled, Sampler, SamplingSettings, Unsampled
from opengrit.types import Completion, Finish, Transcript

if TYPE_CHECKING:
    from opengrit.models import Loaded

# Okabe and Ito's palette: told apart by colour-blind people; every box carries its number as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")


@dataclass(frozen=True, slots=True)
class PointedBox:
    """One pointing in the picture's own pixels (left, top, right, bottom)."""

    number: int
    label: str | None
    section: str
    pixels: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said about a picture. `text` is None where it gave no answer; `seconds` is wall-clock time."""

    question: str
    text: str | None
    transcript: Transcript
    boxes: tuple[PointedBox, ...]
    finish: Finish
    picture_size: Size
    seen_size: Size
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; boxes are in picture pixels and in the unit square."""
        return {
            "question": self.question,
            "answer": self.text,
            "transcript": self.transcript.text,
            "thought": self.transcript.thought,
            "rethink": self.transcript.rethink,
            "boxes": [
                {
                    "label": b.label,
                    "section": b.section,
                    "pixels": [round(n, 2) for n in b.pixels],
                    "unit": [round(n, 5) for n in (p.box.left, p.box.top, p.box.right, p.box.bottom)],
                }
                for b, p in zip(self.boxes, self.transcript.pointings, strict=True)
            ],
            "rejected": [{"text": r.text, "reason": r.reason.value} for r in self.transcript.rejected],
            "finish": self.finish.value,
            "picture_size": [self.picture_size.width, self.picture_size.height],
            "seen_size": [self.seen_size.width, self.seen_size.height],
            "seconds": round(self.seconds, 3),
        }


def check_question(question: str) -> None:
    """Raise DataError for a question with nothing in it, or with half a character."""
    if not question.strip() or not encodable(question):
        raise DataError(
            f"a question is text with something in it, got {question!r}; write what you want to know"
        )


class Grounder:
    """A model to ask. `Grounder.load("tiny-qwen2.5-vl").ask("dogs.png", "How many dogs are there?")`."""

    def __init__(self, sampler: Sampler, *, frame: str, strategy: Strategy | str = Strategy.GROUNDED) -> None:
        self._sampler = sampler
        self._frame = frame
        self._strategy = strategy_named(strategy)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        strategy: Strategy | str = Strategy.GROUNDED,
        frame: str | None = None,
        max_pixels: int | None = None,
    ) -> Grounder:
        """The model of a packaged name, hub id, run folder, model folder or adapter. Raises ModelError.

        An unknown strategy is a RecipeError before the model loads.
        """
        strategy = strategy_named(strategy)
        from opengrit.models import load
        from opengrit.samplers.transformers import TransformersSampler

        loaded: Loaded = load(model, frame=frame, max_pixels=max_pixels)
        return cls(TransformersSampler(loaded, vision_is_fixed=True), frame=loaded.frame, strategy=strategy)

    def ask(
        self,
        image: str | Path,
        question: str,
        *,
        max_new_tokens: int = 1000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """The answer to one question about the picture in a file.

        Raises ImageError where the picture cannot be read, DataError for a question that is no text.
        """
        check_question(question)
        began = time.perf_counter()
        asked = Asked("ask", str(image), user_text(self._strategy, question, family=self._frame))
        settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        [[said]] = self._sampler.sample([asked], samples_per_question=1, settings=settings)
        match said:
            case Unsampled(reason=reason):
                raise ImageError(reason)
            case Sampled(completion=completion, seen_size=seen_size):
                return self._answer(
                    question, completion, picture_size(image), seen_size, time.perf_counter() - began
                )

    def _answer(
        self, question: str, completion: Completion, picture_size: Size, seen_size: Size, seconds: float
    ) -> Answer:
        frame = frame_for(self._frame, seen_size)
        transcript = transcribe(completion, strategy=self._strategy, frame=frame)
        boxes = tuple(
            PointedBox(number, p.label, p.section.value, p.box.to_pixels(picture_size))
            for number, p in enumerate(transcript.pointings, start=1)
        )
        return Answer(
            question=question,
            text=transcript.answer,
            transcript=transcript,
            boxes=boxes,
            finish=completion.finish,
            picture_size=picture_size,
            seen_size=seen_size,
            seconds=seconds,
        )


def draw_boxes(picture: Image.Image, boxes: tuple[PointedBox, ...]) -> Image.Image:
    """A copy of the picture, at least 480 pixels wide, with numbered and coloured boxes; boxes are in its pixels."""
    scale = max(1.0, 480 / picture.width)
    shown = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)))
    pen = ImageDraw.Draw(shown)
    width = max(2, round(shown.width / 240))
    font = ImageFont.load_default(max(12, shown.width // 36))
    for box in boxes:
        colour = COLOURS[(box.number - 1) % len(COLOURS)]
        left, top, right, bottom = (n * scale for n in box.pixels)
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
        name = f"{box.number} {box.label}" if box.label else str(box.number)
        _write_name(pen, name, (left, top), colour=colour, font=font, bounds=shown.size)
    return shown


def _write_name(
    pen: ImageDraw.ImageDraw,
    name: str,
    corner: tuple[float, float],
    *,
    colour: str,
    font: Any,
    bounds: tuple[int, int],
) -> None:
    _, _, wide, high = pen.textbbox((0, 0), name, font=font)
    left = min(max(0.0, corner[0]), max(0.0, bounds[0] - wide - 6))
    top = corner[1] - high - 4 if corner[1] - high - 4 >= 0 else corner[1]
    pen.rectangle((left, top, left + wide + 6, top + high + 4), fill=colour)
    pen.text(
        (left + 3, top + 1),
        name,
        fill="black" if colour in ("#F0E442", "#E69F00", "#56B4E9") else "white",
        font=font,
    )
