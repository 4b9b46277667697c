"""Where a box lies on a drawing, read from its pixels alone."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from opengrit.core.boxes import Box, Size
from opengrit.core.drawing import colour_of


def check_frame(drawing: Image.Image, box: Box, *, number: int = 1) -> None:
    """AssertionError where an edge of the drawn box is more than two pixels from where the record says."""
    wanted, found = box.to_pixels(Size(*drawing.size)), frame_of(drawing, number)
    assert all(abs(a - b) <= 2 for a, b in zip(found, wanted, strict=True)), (found, wanted)


def frame_of(drawing: Image.Image, number: int) -> tuple[int, int, int, int]:
    """The outer edges (left, top, right, bottom in pixels) of the box of that number: the longest lines of its colour.

    The tag with the box's name has the same colour and is no line: it is shorter than the box is wide, or taller than a line.
    """
    colour = np.array(ImageColor.getrgb(colour_of(number)[0]))
    is_line_YX = (np.asarray(drawing.convert("RGB")).astype(int) == colour).all(axis=2)
    across, down = _longest_runs(is_line_YX), _longest_runs(is_line_YX.T)
    rows = np.flatnonzero(across >= 0.6 * across.max())
    columns = np.flatnonzero(down >= 0.6 * down.max())
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _longest_runs(marked_YX: np.ndarray) -> np.ndarray:
    """For each row, the length of its longest run of marked pixels."""
    longest_Y = np.zeros(len(marked_YX), dtype=int)
    current_Y = np.zeros(len(marked_YX), dtype=int)
    for column in marked_YX.T:
        current_Y = np.where(column, current_Y + 1, 0)
        longest_Y = np.maximum(longest_Y, current_Y)
    return longest_Y
