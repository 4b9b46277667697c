"""A run on disk: its folder, its lock, and the alarms of a training that goes wrong.

May import `data` and the floors below it. Begin with `folder.py`.
"""

from opengrit.runs.folder import RunDir

__all__ = ["RunDir"]
