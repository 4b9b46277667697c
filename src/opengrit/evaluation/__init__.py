"""From questions to records and from records to numbers: rollouts, metrics, probes of the evidence.

May import `models` and the floors below it. Begin with `rollout.py`, then `evaluator.py`; `metrics/` needs records only.
"""

from opengrit.evaluation.evaluator import evaluate

__all__ = ["evaluate"]
