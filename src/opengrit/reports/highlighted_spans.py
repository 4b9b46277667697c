"""Splits a transcript's text at its pointings, rejected coordinates and tags, so that a page can highlight them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Transcript


class SpanKind(Enum):
    """What a span of text is."""

    PLAIN = "plain"
    POINTING = "pointing"
    REJECTED = "rejected"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text and what it is; `index` counts within the transcript's tuple of that kind.

    The text of a pointing is empty where another span already holds all its characters.
    """

    kind: SpanKind
    text: str
    index: int = 0


def split_spans(transcript: Transcript) -> tuple[Span, ...]:
    """The text in spans: joined they are the text again, and each pointing is exactly one span.

    A character belongs to the span that starts first. A pointing inside or across another keeps what is left
    of it after the other ends, possibly nothing; it is there anyway, so that its number can be shown.
    Offsets beyond the text are moved to its end. Linear in the text after sorting the spans.
    """
    found = [(p.start, p.end, i, SpanKind.POINTING) for i, p in enumerate(transcript.pointings)]
    found += [(r.start, r.end, i, SpanKind.REJECTED) for i, r in enumerate(transcript.rejected)]
    found += [(t.start, t.end, i, SpanKind.TAG) for i, t in enumerate(transcript.tags)]
    text, at, spans = transcript.text, 0, []
    for first, last, index, kind in sorted(found, key=lambda f: (f[0], -f[1], f[2])):
        start = min(max(first, at), len(text))
        end = min(max(last, start), len(text))
        if start > at:
            spans.append(Span(SpanKind.PLAIN, text[at:start]))
        if end > start or kind is SpanKind.POINTING:
            spans.append(Span(kind, text[start:end], index))
        at = end
    if at < len(text):
        spans.append(Span(SpanKind.PLAIN, text[at:]))
    return tuple(spans)
