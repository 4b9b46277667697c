"""`opengrit doctor`: what would waste a run, found before it starts.

May import `inference` and the floors below it. Begin with `diagnosis.py`; each area is a file of its own.
"""

from opengrit.doctor.context import Environment
from opengrit.doctor.diagnosis import diagnose
from opengrit.doctor.findings import Area, Finding, Level, count, would_be_wasted

__all__ = ["Area", "Environment", "Finding", "Level", "count", "diagnose", "would_be_wasted"]
