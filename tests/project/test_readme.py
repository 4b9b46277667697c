"""The README tells the truth: its commands and targets exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_every_command_the_readme_shows_is_a_command():
    from opengrit.cli.app import app

    groups = {command.name for command in app.registered_commands}
    groups |= {group.name for group in app.registered_groups}
    shown = set(re.findall(r"^ {4}opengrit (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert shown
    assert shown <= groups


def test_every_make_target_the_readme_shows_is_a_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^ {4}make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
