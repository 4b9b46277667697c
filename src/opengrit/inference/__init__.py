"""A trained model in use: ask one question, many, or stream the answer while it is written.

May import `experiments` and the floors below it. Begin with `grounder.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.inference.answer import Answer
    from opengrit.inference.grounder import Grounder

__all__ = ["Answer", "Grounder"]

__getattr__ = lazy_names(
    __name__, {"Answer": "opengrit.inference.answer", "Grounder": "opengrit.inference.grounder"}
)
