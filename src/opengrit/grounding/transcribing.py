"""A completion as a transcript, by the prompt that it answers."""

from __future__ import annotations

from dataclasses import replace

from opengrit.core.types import Completion, Transcript
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import Strategy, asked_for


def transcribe(
    completion: Completion, *, strategy: Strategy | str, frame: Frame, system: str | None = None
) -> Transcript:
    """The completion, read. Under a prompt that asks for no answer tag, such as direct, a text without one is the answer."""
    transcript = parse(completion.text, frame, completion.finish)
    if transcript.answer is None and not asked_for(strategy, system=system).answer_tag:
        return replace(transcript, answer=completion.text.strip())
    return transcript
