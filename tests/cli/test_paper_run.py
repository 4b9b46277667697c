"""The paper's run in three lines, and its checkpoint by hub id, with a random-weight model of the real class."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_random
from paper_run import three_lines_and_the_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.trains]


def test_three_lines_from_an_empty_folder_to_a_trained_step_and_the_papers_checkpoint_by_its_id(
    tmp_path: Path,
) -> None:
    folder = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), tmp_path / "model")
    three_lines_and_the_checkpoint(tmp_path, {path.name: path.read_bytes() for path in folder.iterdir()})
