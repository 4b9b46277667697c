"""The ZeRO-2 scenario of the distributed tests with the real DeepSpeed, its end included."""

from __future__ import annotations

import sys

import pytest

from engines import ROOT, environment, run

pytestmark = pytest.mark.needs("deepspeed")


def test_two_processes_under_zero_2_learn_resume_and_end():
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "deepspeed"]
    said = run(
        [*command, str(ROOT / "tests" / "training" / "test_distributed.py")],
        environment("deepspeed"),
        timeout=600,
    )
    assert "1 passed" in said
