"""Records -> one self-contained HTML page, and the viewer that lights up each pointing's box.

May import `training` and the floors below it. Begin with `page.py`; the viewer is `viewer.py`.
"""

from opengrit.reports.console import print_summary, print_tables
from opengrit.reports.loading import load_runs
from opengrit.reports.page import build_report, write_report
from opengrit.reports.pictures import NoPicture
from opengrit.reports.runs import RunKind, RunView
from opengrit.reports.viewer import viewer_html

__all__ = [
    "NoPicture",
    "RunKind",
    "RunView",
    "build_report",
    "load_runs",
    "print_summary",
    "print_tables",
    "viewer_html",
    "write_report",
]
