"""Records -> one self-contained HTML page, and the viewer that lights up each pointing's box."""

from opengrit.report.console import print_summary
from opengrit.report.evidence import Evidence, print_evidence
from opengrit.report.exhibits import MAX_EXHIBITS, Exhibit, Take, choose, pair_up
from opengrit.report.loading import load_runs
from opengrit.report.page import build_report, write_report
from opengrit.report.pictures import NoPicture, OpenPicture, Picture, embed, read_picture
from opengrit.report.runs import RunKind, RunView
from opengrit.report.viewer import Viewer, exhibits_html, viewer_html

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
