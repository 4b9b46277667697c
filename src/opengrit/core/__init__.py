"""The nouns: boxes, examples, transcripts, records, pictures, and the errors we raise.

Imports nothing else of the package. Begin with `types.py`, then `boxes.py`.
"""

from opengrit.core.boxes import Box, Size, box_iou, union_area, union_iou
from opengrit.core.errors import DataError, ImageError, ModelError, OpenGritError, RecipeError, RunError
from opengrit.core.types import (
    Completion,
    Example,
    Finish,
    Pointing,
    Record,
    Score,
    Transcript,
    Unjudged,
    Verdict,
)

__all__ = [
    "Box",
    "Completion",
    "DataError",
    "Example",
    "Finish",
    "ImageError",
    "ModelError",
    "OpenGritError",
    "Pointing",
    "RecipeError",
    "Record",
    "RunError",
    "Score",
    "Size",
    "Transcript",
    "Unjudged",
    "Verdict",
    "box_iou",
    "union_area",
    "union_iou",
]
