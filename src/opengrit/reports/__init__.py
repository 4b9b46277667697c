"""Records -> one self-contained HTML page, and the viewer that lights up each pointing's box.

May import `training` and the floors below it. Begin with `page.py`; the viewer is `viewer.py`.
"""

from opengrit.reports.console import print_summary
from opengrit.reports.evidence import Evidence, print_evidence
from opengrit.reports.loading import load_runs
from opengrit.reports.page import build_report, write_report
from opengrit.reports.pictures import NoPicture, OpenPicture, Picture, embed, read_picture
from opengrit.reports.runs import RunKind, RunView
from opengrit.reports.selected_examples import MAX_EXHIBITS, Exhibit, Take, choose, pair_up
from opengrit.reports.viewer import Viewer, exhibits_html, viewer_html

__all__ = [
    "MAX_EXHIBITS",
    "Evidence",
    "Exhibit",
    "NoPicture",
    "OpenPicture",
    "Picture",
    "RunKind",
    "RunView",
    "Take",
    "Viewer",
    "build_report",
    "choose",
    "embed",
    "exhibits_html",
    "load_runs",
    "pair_up",
    "print_evidence",
    "print_summary",
    "read_picture",
    "viewer_html",
    "write_report",
]
