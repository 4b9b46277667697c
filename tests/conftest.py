"""What every test run needs, in one process or in workers that share the files out."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
from hypothesis import settings

# trackio reads it when it is imported, which TRL does: no test writes into the home folder of whoever runs it.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-of-tests-")

# The longest first, so that the workers end together: a worker runs one file at a time, in this order.
LONGEST_FIRST = (
    "test_distributed.py",
    "test_eval_processes.py",
    "test_faults.py",
    "test_crash.py",
    "test_fuzz.py",
    "test_end_to_end.py",
    "test_families.py",
    "test_security.py",
    "test_table.py",
    "test_exactness.py",
    "test_page.py",
    "test_trainer.py",
    "test_controls.py",
    "test_serve_api.py",
    "test_serve_load.py",
    "test_bad_input.py",
    "test_serve_hostile.py",
    "test_doctor.py",
    "test_report_browser.py",
    "test_annotate_browser.py",
)

# Files outside tests/training/ that train models, and files that take long as a whole.
TRAINING_FILES = ("test_families.py", "test_judged_runs.py")
SLOW_FILES = ("test_serve_hostile.py", "test_bad_input.py", "test_doctor.py", "test_controls.py")

# A machine with other work takes longer over an example than another: hypothesis asks for correctness alone.
settings.register_profile("opengrit", deadline=None)
settings.load_profile("opengrit")

# In the background of a script, and in a worker of pytest-xdist, SIGINT is ignored, and every process inherits that:
# a training that is interrupted in a test would not hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m does not name
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark what trains, what is slow and what opens a page, and put the longest files first; the others keep their order."""
    for item in items:
        if item.path.parent.name == "training" or item.path.name in TRAINING_FILES:
            item.add_marker("trains")
        if item.path.name in SLOW_FILES:
            item.add_marker("slow")
        if "browser" in item.fixturenames:
            item.add_marker("browser")
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
