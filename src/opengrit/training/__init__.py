"""Training by reinforcement (GRPO-GR) and by example (SFT), with checkpoints that can be resumed exactly.

May import `evaluation` and the floors below it. Begin with `run.py`, then `trainer.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.training.run import train
    from opengrit.training.sft import fine_tune
    from opengrit.training.trainer import GritTrainer

__all__ = ["GritTrainer", "fine_tune", "train"]

__getattr__ = lazy_names(
    __name__,
    {
        "GritTrainer": "opengrit.training.trainer",
        "fine_tune": "opengrit.training.sft",
        "train": "opengrit.training.run",
    },
)
