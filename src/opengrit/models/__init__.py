"""Model families, and a model loaded by packaged name, folder or hub id.

May import `sampling` and the floors below it. Begin with `loading.py`; `resolve.py`, `shapes.py` and
`memory_estimate.py` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.models.families import Family, Loaded
    from opengrit.models.loading import load

__all__ = ["Family", "Loaded", "load"]

__getattr__ = lazy_names(
    __name__,
    {
        "Family": "opengrit.models.families",
        "Loaded": "opengrit.models.families",
        "load": "opengrit.models.loading",
    },
)
