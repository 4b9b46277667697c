"""A model's answer as text for a harness that knows nothing of its coordinates: boxes in thousandths of the picture."""

from __future__ import annotations

from opengrit.core.types import Transcript

_NO_BOX = "[no box]"  # in place of numbers that were none in the model's own frame, and could be some in thousandths
_NO_ANSWER = "<answer></answer>"
_DECIMALS = 2


def in_thousandths(transcript: Transcript) -> str:
    """The transcript's text with each box as [left, top, right, bottom] in thousandths of the picture's width and height.

    Numbers that could not be a box are taken out, so that nothing is a box in this text that was none, and a text without an
    answer ends with an empty one, so that it is not taken for an answer itself. The rest stays.
    """
    boxes = [
        (p.start, p.end, _written(p.box.left, p.box.top, p.box.right, p.box.bottom))
        for p in transcript.pointings
    ]
    rejected = [(r.start, r.end, _NO_BOX) for r in transcript.rejected]
    text, end = "", 0
    for start, stop, words in sorted(boxes + rejected):
        if start < end:  # inside one that is replaced already
            continue
        text += transcript.text[end:start] + words
        end = stop
    return text + transcript.text[end:] + (_NO_ANSWER if transcript.answer is None else "")


def _written(*corners: float) -> str:
    return f"[{', '.join(f'{round(1000 * corner, _DECIMALS):g}' for corner in corners)}]"
