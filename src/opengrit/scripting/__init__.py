"""What a script or a notebook uses: train, evaluate and report as functions, and the `Run` that they give.

May import `inference` and the floors below it. Begin with `commands.py`; `run.py` is what a run's folder looks like from Python.
"""

from opengrit.scripting.commands import evaluate, report, train
from opengrit.scripting.run import Run

__all__ = ["Run", "evaluate", "report", "train"]
