"""`--help` teaches: options in named groups, no type behind a switch, and an example with one's own data in each command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from opengrit.cli.app import app

OWN = re.compile(r"photos/|mine")
# These have nothing to do with data of one's own: they list or fetch what is known by name.
WITHOUT_OWN_DATA = {"data list", "data make stickers", "recipe list", "recipe show"}


def commands(group: TyperGroup, name: str = "") -> Iterator[tuple[str, TyperCommand]]:
    for word, one in group.commands.items():
        if isinstance(one, TyperGroup):
            yield from commands(one, f"{name}{word} ")
        elif isinstance(one, TyperCommand):
            yield name + word, one


ROOT = typer.main.get_command(app)
assert isinstance(ROOT, TyperGroup)
COMMANDS = dict(commands(ROOT))


def shown(words: str) -> list[str]:
    """The lines of a command's help on a terminal of 80 columns."""
    done = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return [line.strip() for line in done.stdout.splitlines()]


def examples(text: str | None) -> list[str]:
    lines = inspect.cleandoc(text or "").splitlines()
    return [line[4:] for line in lines[lines.index("Examples:") :] if line.startswith("    ")]


@pytest.mark.parametrize("words", ["", "data", "recipe", *COMMANDS])
def test_help_shows_no_type_behind_a_switch_or_an_argument(words: str) -> None:
    text = "\n".join(shown(words))
    assert "--help" in text
    assert not re.search(r"<(bool|path|str|int|float|list|file)\b", text)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_stands_in_a_named_group(words: str) -> None:
    options = [one for one in COMMANDS[words].params if one.param_type_name == "option"]
    assert [one.name for one in options if not getattr(one, "rich_help_panel", None)] == []


@pytest.mark.parametrize("words", COMMANDS)
def test_help_has_examples_of_the_command_whole_and_with_ones_own_data(words: str) -> None:
    written = examples(COMMANDS[words].help)
    lines = shown(words)
    assert any(line.startswith(f"opengrit {words}") for line in written)
    assert [line for line in written if line.strip() not in lines] == []  # none is broken in 80 columns
    assert words in WITHOUT_OWN_DATA or any(OWN.search(line) for line in written)


def test_the_first_help_groups_the_commands_and_shows_three() -> None:
    lines = shown("")
    for heading in ("Train", "Measure", "Use a model", "Data"):
        assert any(re.match(rf"\W+ {heading} \W+$", line) for line in lines), heading
    assert [line for line in examples(ROOT.help) if line.strip() not in lines] == []


def test_help_says_what_an_exit_code_means() -> None:
    assert any("Exit code: 0" in line for line in shown("data check"))
