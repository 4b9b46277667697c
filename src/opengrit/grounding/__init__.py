"""Grounded text: prompts for a model, what it writes, and the boxes in it.

May import `core`. Begin with `parsing.py`; `frames.py` turns a family's coordinates into the unit square and back.
"""

from opengrit.grounding.frames import Frame, Unit
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import user_text

__all__ = ["Frame", "Unit", "parse", "user_text"]
