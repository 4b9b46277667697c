"""The pictures of README and site: a recorded terminal is taken apart, and each picture is small and described."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from scripts import script

from opengrit.training.progress_table import ProgressTable

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"


def test_a_recorded_training_is_taken_apart_into_the_tables_it_drew() -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=84)
    with ProgressTable(num_steps=2, console=console) as table:
        for step in (1, 2):
            table.show({"step": step, "reward": step / 4, "parts/correct": 0.5})
            console.print(f"a line of the log after step {step}")
    console.print("what follows the table")
    first, *_, last = script("animations").live_tables(said.getvalue())
    assert first.lstrip().startswith("\x1b[3m")  # rich sets a title in italics
    assert "step 0 of 2" in first
    assert re.search("step 2 of 2.*0.25.*0.50.*parts of the reward: correct 0.50", last, re.DOTALL)
    assert "a line of the log" not in last
    assert "what follows the table" not in last
    assert "\x1b[2K" not in last
    of_a_terminal = said.getvalue().replace("\n", "\r\n")
    assert script("animations").live_tables(of_a_terminal)[-1] == last


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/start.md", "docs/serving.md"])
def test_pictures_are_there_small_and_described(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"!\[([^\]]*)\]\(([^)]+\.(?:png|webp))\)", text)
    named += re.findall(r'<img alt="([^"]*)" src="([^"]+)"', text)
    assert named
    for described, path in named:
        file = (ROOT / page).parent / path
        assert len(described) > 30, path
        assert file.stat().st_size <= 400_000, path
        with Image.open(file) as picture:
            if getattr(picture, "n_frames", 1) > 1:  # for those who want nothing to move
                still = file.with_name(f"{file.stem}-still.webp")
                assert still.is_file()
                assert f'srcset="{Path(path).parent.as_posix()}/{still.name}"' in text
