"""The attention to the picture as the report shows it: shares, paired differences, and what was left out."""

from __future__ import annotations

from markupsafe import Markup

from opengrit.evaluation.attention import AttentionScores, Reading
from opengrit.evaluation.metrics import Estimate
from opengrit.reports.plots import Interval, interval_plot
from opengrit.reports.tables import Cell, Line, Unit, difference_cell, value_cell

ATTENTION_TITLE = "Does it look at the picture while it rethinks?"
_NONE = "no answer is read"
_READINGS = {
    Reading.WRITTEN: ("as written", "of the attention that its first 50 tokens are written with"),
    Reading.NO_BOXES: ("boxes deleted", "without the boxes before the rethinking"),
    Reading.FEWER_WORDS: ("words deleted", "without other tokens, drawn at random"),
    Reading.FEWER_BOXES: ("as many of the boxes' tokens deleted", "drawn at random where boxes have more"),
}


def attention_lines(scores: AttentionScores | None) -> tuple[Line, ...]:
    """The table; nothing where attention was not measured."""
    if scores is None:
        return ()

    def share(found: Estimate) -> Cell:
        return value_cell(found, Unit.OVERLAP, _NONE)

    def difference(found: Estimate) -> Cell:
        return difference_cell(found, Unit.OVERLAP, _NONE)

    lines = []
    for reading, (name, meaning) in _READINGS.items():
        lines.append(Line(f"Attention to the picture, {name}", share(scores.share[reading]), meaning))
        lines.append(
            Line(
                "if it were even", share(scores.even[reading]), "the picture's tokens among all that are seen"
            )
        )
    differences = (
        ("As written minus boxes deleted", scores.without_boxes, "paired: the paper's comparison"),
        ("As written minus words deleted", scores.without_words, "paired"),
        (
            "Words deleted minus as many of the boxes' tokens",
            scores.boxes_over_words,
            "paired: above 0 where boxes hold attention on the picture and other words do not",
        ),
    )
    return (*lines, *(Line(name, difference(found), meaning) for name, found, meaning in differences))


def attention_notes(scores: AttentionScores) -> tuple[str, ...]:
    """What the figures are of, in sentences."""
    left_out = [f"{count} {reason.value}" for reason, count in scores.unread.items()]
    if scores.failed:
        left_out.append(f"{scores.failed} failed (the same command tries them again)")
    found = [
        f"Attention: {scores.num_read} of {scores.num_answers} answers are read"
        + (f"; not read: {', '.join(left_out)}." if left_out else ".")
    ]
    if scores.uncompared:
        found.append(f"{scores.uncompared} of them hold no other token to delete in place of a box's.")
    if scores.tokens is not None:
        deleted = "none" if scores.deleted is None else f"{scores.deleted:.1f} of either"
        found.append(
            f"On average {scores.tokens:.1f} tokens of the rethinking are measured, and deleted are {scores.box_tokens:.1f} "
            f"tokens of boxes, and {deleted} in the comparison with other words."
        )
    return tuple(found)


def attention_plot(scores: AttentionScores) -> Markup:
    """The shares with their intervals."""
    series = {Reading.WRITTEN: 0, Reading.NO_BOXES: 1, Reading.FEWER_BOXES: 1, Reading.FEWER_WORDS: None}
    rows = [
        Interval.of(name, scores.share[reading], series=series[reading])
        for reading, (name, _) in _READINGS.items()
    ]
    return interval_plot(
        rows, title="Attention to the picture while rethinking", x_label="share, 95 % interval", high=0.1
    )
