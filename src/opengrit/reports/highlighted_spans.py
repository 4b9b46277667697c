"""Cuts a transcript's text at its pointings, rejected coordinates and tags, so that a page can mark them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from opengrit.core.types import Transcript


class Mark(Enum):
    """What a piece of text is."""

    PLAIN = "plain"
    POINTING = "pointing"
    REJECTED = "rejected"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text and what it is; `index` counts within the transcript's tuple of that kind.

    The text of a pointing is empty where another mark already holds all its characters.
    """

    mark: Mark
    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class _Claim:
    start: int
    end: int
    mark: Mark
    index: int


def cut(transcript: Transcript) -> tuple[Piece, ...]:
    """The text in pieces: joined they are the text again, and each pointing is exactly one piece.

    A character belongs to the mark that starts first. A pointing inside or across another keeps what is left
    of it after the other ends, possibly nothing; it is there all the same, so that its number can be shown.
    Offsets beyond the text are moved to its end. Linear in the text after sorting the marks.
    """
    return tuple(_pieces(transcript))


def _pieces(transcript: Transcript) -> Iterator[Piece]:
    text, at = transcript.text, 0
    for claim in sorted(_claims(transcript), key=lambda c: (c.start, -c.end, c.index)):
        start = min(max(claim.start, at), len(text))
        end = min(max(claim.end, start), len(text))
        if start > at:
            yield Piece(Mark.PLAIN, text[at:start])
        if end > start or claim.mark is Mark.POINTING:
            yield Piece(claim.mark, text[start:end], claim.index)
        at = end
    if at < len(text):
        yield Piece(Mark.PLAIN, text[at:])


def _claims(transcript: Transcript) -> Iterator[_Claim]:
    for i, pointing in enumerate(transcript.pointings):
        yield _Claim(pointing.start, pointing.end, Mark.POINTING, i)
    for i, rejected in enumerate(transcript.rejected):
        yield _Claim(rejected.start, rejected.end, Mark.REJECTED, i)
    for i, tag in enumerate(transcript.tags):
        yield _Claim(tag.start, tag.end, Mark.TAG, i)
