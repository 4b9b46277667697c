"""What plugs this package into evaluation harnesses: lmms-eval runs our models, and our data sets run there.

May import `inference` and the floors below it. Begin with `tasks.py`, what lmms-eval's YAML files in `lmms_eval_tasks/` name;
`lmms_eval_model.py` is the model. Nothing here is imported by the rest, and only the model imports lmms-eval.
"""

from pathlib import Path

TASKS = Path(__file__).parent / "lmms_eval_tasks"  # what lmms-eval takes as --include_path
