"""The pictures of README and site: a recorded terminal is taken apart."""

from __future__ import annotations

import io
import re

from rich.console import Console
from scripts import script

from opengrit.training.progress_table import ProgressTable


def test_a_recorded_training_is_taken_apart_into_the_tables_it_drew() -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=84)
    with ProgressTable(num_steps=2, console=console) as table:
        for step in (1, 2):
            table.show({"step": step, "reward": step / 4, "parts/correct": 0.5})
            console.print(f"a line of the log after step {step}")
    first, *_, last = script("animations").live_tables(said.getvalue())
    assert first.lstrip().startswith("\x1b[3m")  # rich sets a title in italics
    assert "step 0 of 2" in first
    assert re.search("step 2 of 2.*0.25.*0.50.*parts of the reward: correct 0.50", last, re.DOTALL)
    assert "a line of the log" not in last
    assert "\x1b[2K" not in last
