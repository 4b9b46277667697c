"""Rewards that mean nothing: what a training does whatever it rewards.

A new reward is a function here and its entry in `CONTROL_REWARDS`.
"""

from __future__ import annotations

import hashlib

from opengrit.rewards.protocol import Attempt, Reward, RewardSpec


def random_coin(attempt: Attempt) -> float:
    """1 or 0 by a hash of the row, the step and the text: a coin that a resumed run tosses alike.

    The control of arXiv 2506.10947, where random rewards raised accuracy. Cheated by nothing: no text is known to earn more.
    """
    named = f"{attempt.example.id}\0{attempt.step}\0{attempt.completion.text}".encode(
        "utf-8", "surrogatepass"
    )
    return float(hashlib.sha256(named).digest()[0] & 1)


CONTROL_REWARDS: dict[Reward, RewardSpec] = {random_coin: RewardSpec(0.0, 1.0)}
