"""Tests against the real vLLM, bitsandbytes, DeepSpeed and vocabulary, run by `make test-engines` and skipped elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines import missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if os.environ.get("OPENGRIT_TEST_ENGINES"):
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="real engines are tested by `make test-engines`"))


@pytest.fixture(autouse=True)
def _engine(request):
    """Skips a test whose `needs(NAME)` is not set up, and says how to find out why."""
    for mark in request.node.iter_markers("needs"):
        for name in mark.args:
            if reason := missing(name):
                pytest.skip(reason)
