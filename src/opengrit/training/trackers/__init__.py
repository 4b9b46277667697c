"""What a training tells programs that draw its curves: trackio, Weights & Biases, TensorBoard and MLflow.

Begin with `opening.py`; `rollouts.py` is the table of sampled rollouts, and each tracker has a file. Metrics go through
transformers' own callbacks, under "train/" and the name they have in metrics.jsonl; those of evaluations during training
keep their names, which begin with "eval/".
"""

from opengrit.training.trackers.opening import Trackers, check_installed, open_trackers

__all__ = ["Trackers", "check_installed", "open_trackers"]
