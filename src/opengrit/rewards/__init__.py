"""What a rollout is worth: small pure rewards with stated ranges, and the rubric that weighs them.

May import `judges` and the floors below it. Begin with `rubric.py`; a family of rewards is a file: `answers.py`,
`format.py`, `boxes.py`. `own.py` is what a reward of your own needs.
"""

from opengrit.core.types import Unjudged, Verdict
from opengrit.rewards.own import reward
from opengrit.rewards.protocol import Attempt
from opengrit.rewards.rubric import Rubric

__all__ = ["Attempt", "Rubric", "Unjudged", "Verdict", "reward"]
