"""What a rollout is worth: small pure rewards with stated ranges, and the rubric that weighs them.

May import `judges` and the floors below it. Begin with `rubric.py`.
"""

from opengrit.rewards.rubric import Attempt, Rubric

__all__ = ["Attempt", "Rubric"]
