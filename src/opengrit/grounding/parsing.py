"""Text from a model becomes a Transcript, once: sections, answer, boxes and what only looks like a box.

`coordinates.py` defines what counts as a box; the frame decides whether it lies in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opengrit.core.boxes import Box
from opengrit.core.types import Finish, FoundTag, Pointing, RejectedPointing, Section, Tag, Transcript
from opengrit.grounding.coordinates import read_coordinates
from opengrit.grounding.frames import Frame


def parse(text: str, frame: Frame, finish: Finish = Finish.UNKNOWN) -> Transcript:
    """What a completion says: its sections, its answer, and each box in the unit square of the picture.

    Never raises, whatever the text. Of each section the first one counts; a repeated one is OUTSIDE.
    The thought ends at </think>, else at <rethink> or <answer>, else with the text; the rethinking likewise.
    The answer is what follows the first <answer>, up to </answer> or the end of the text: None where there is
    no <answer>, the empty string where nothing follows it. Sections come without outer white space.
    Numbers that cannot be a box are in `rejected` with the reason; `tags` lists all tags in order.
    """
    scan = read_coordinates(text, finish)
    sections = sections_of(text, scan.tags)
    pointings: list[Pointing] = []
    rejected: list[RejectedPointing] = []
    position = 0
    for found in scan.found:
        while sections[position].end <= found.start:
            position += 1
        section = sections[position].section
        box = found.reason or frame.to_box(found.numbers, written_unit=found.unit)
        if isinstance(box, Box):
            a, b, c, d = found.numbers
            pointings.append(Pointing(box, found.label, section, found.start, found.end, (a, b, c, d)))
        else:
            words = text[found.start : found.end]
            rejected.append(RejectedPointing(words, box, section, found.start, found.end))
    return Transcript(
        text=text,
        thought=_text_of(sections, text, Section.THOUGHT),
        rethink=_text_of(sections, text, Section.RETHINK),
        answer=_text_of(sections, text, Section.ANSWER),
        pointings=tuple(pointings),
        rejected=tuple(rejected),
        tags=scan.tags,
        finish=finish,
    )


@dataclass(frozen=True, slots=True)
class SectionSpan:
    """Where a section is in a text, without the tags around it."""

    section: Section
    start: int
    end: int


_OPENS = {
    Tag.THINK_OPEN: Section.THOUGHT,
    Tag.RETHINK_OPEN: Section.RETHINK,
    Tag.ANSWER_OPEN: Section.ANSWER,
}
_CLOSES = {
    Tag.THINK_CLOSE: Section.THOUGHT,
    Tag.RETHINK_CLOSE: Section.RETHINK,
    Tag.ANSWER_CLOSE: Section.ANSWER,
}


def sections_of(text: str, tags: Sequence[FoundTag]) -> list[SectionSpan]:
    """The whole text cut into sections at its tags, in order; each named section occurs at most once."""
    spans: list[SectionSpan] = []
    seen: set[Section] = set()
    section, start = Section.OUTSIDE, 0
    for found in tags:
        opened, closed = _OPENS.get(found.tag), _CLOSES.get(found.tag)
        if section is Section.ANSWER and closed is not Section.ANSWER:
            continue
        if opened is section or (closed is not None and closed is not section):
            continue
        spans.append(SectionSpan(section, start, found.start))
        section = Section.OUTSIDE if opened is None or opened in seen else opened
        seen.add(section)
        start = found.end
    spans.append(SectionSpan(section, start, len(text) + 1))
    return spans


def _text_of(spans: Sequence[SectionSpan], text: str, section: Section) -> str | None:
    """The section's text without outer white space, or None where the text has no such section."""
    return next((text[span.start : span.end].strip() for span in spans if span.section is section), None)
