"""The paper's run in three lines with the real vocabulary of 151,936 rows, small in width."""

from __future__ import annotations

import pytest
import real_vocabulary
from paper_run import three_lines_and_the_checkpoint

pytestmark = pytest.mark.needs("vocabulary")


def test_three_lines_lead_to_a_trained_step_with_the_real_vocabulary(tmp_path):
    folder = real_vocabulary.build("2.5", tmp_path / "model")
    three_lines_and_the_checkpoint(tmp_path, {path.name: path.read_bytes() for path in folder.iterdir()})
