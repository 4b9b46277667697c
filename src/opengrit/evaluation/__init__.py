"""From questions to records and from records to numbers: rollouts, metrics, probes of the evidence.

May import `models` and the floors below it. Begin with `rollout.py`, then `evaluator.py`; `metrics/` needs records only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.evaluation.evaluator import evaluate

__all__ = ["evaluate"]

__getattr__ = lazy_names(__name__, {"evaluate": "opengrit.evaluation.evaluator"})
