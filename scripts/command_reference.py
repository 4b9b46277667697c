"""Write docs/commands.md, every command with its options, from the commands themselves: `python scripts/command_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from opengrit.cli.app import app
from opengrit.cli.help import value_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = """# Every command

`scripts/command_reference.py` writes this page from the commands; edit those. `opengrit COMMAND --help` prints the same.

Exit codes: 0 done; 1 done, but something was left out or found wrong (the command says what); 2 an error that you can fix; 130 and 143
stopped by Ctrl-C or SIGTERM after saving its work.

"""
_ESCAPES = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*", "[": "\\[", "]": "\\]"})


def page() -> str:
    """The page's text: a section for each command, in the order of `opengrit --help`."""
    found = list(commands())
    index = [f"* [`{name}`](#{name.replace(' ', '-')}): {first_line(one)}" for name, one in found]
    return HEAD + "\n".join(index) + "\n\n" + "\n".join(section(name, one) for name, one in found)


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Each command with its whole name (`opengrit data check`); hidden ones are left out."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    yield from _of_group(group, "opengrit")


def _of_group(group: TyperGroup, name: str) -> Iterator[tuple[str, TyperCommand]]:
    for word, one in group.commands.items():
        if isinstance(one, TyperGroup):
            yield from _of_group(one, f"{name} {word}")
        elif isinstance(one, TyperCommand) and not one.hidden:
            yield f"{name} {word}", one


def first_line(one: TyperCommand) -> str:
    return (one.help or "").partition("\n\n")[0].replace("\n", " ")


def section(name: str, one: TyperCommand) -> str:
    """A command: how it is called, its help with examples, and tables of arguments and options."""
    arguments = [p for p in one.params if isinstance(p, TyperArgument) and not p.hidden]
    options = [p for p in one.params if isinstance(p, TyperOption) and not p.hidden]
    call = [name, *(argument_name(p) if p.required else f"[{argument_name(p)}]" for p in arguments)]
    call += [f"{p.opts[0]} {value_of(p)}".rstrip() for p in options if p.required]
    call += ["[OPTIONS]"] if any(not p.required for p in options) else []
    parts = [f"## {name}", f"```text\n{' '.join(call)}\n```", one.help or ""]
    if arguments:
        parts.append(table("argument", [(argument_name(p), p) for p in arguments]))
    for panel in dict.fromkeys(p.rich_help_panel for p in options):
        rows = [("`, `".join([*p.opts, *p.secondary_opts]), p) for p in options if p.rich_help_panel == panel]
        parts.append(table(panel or "option", rows))
    return "\n\n".join(parts) + "\n"


def argument_name(argument: TyperArgument) -> str:
    return argument.metavar or argument.name.upper()


def table(kind: str, rows: list[tuple[str, TyperArgument | TyperOption]]) -> str:
    lines = [f"| {kind} | value | default | meaning |", "|---|---|---|---|"]
    for name, one in rows:
        value = value_in_words(one).translate(_ESCAPES)
        lines.append(f"| `{name}` | {value} | {default_of(one)} | {(one.help or '').translate(_ESCAPES)} |")
    return "\n".join(lines)


def value_in_words(one: TyperArgument | TyperOption) -> str:
    """What may stand there; nothing behind a switch. An argument's name says it."""
    if isinstance(one, TyperArgument):
        return ""
    low = f" >= {one.min}" if one.min is not None else ""
    return value_of(one) + low + (f" <= {one.max}" if one.max is not None else "")


def default_of(one: TyperArgument | TyperOption) -> str:
    if one.required:
        return "required"
    if one.default is None or one.default is False:
        return ""
    return f"`{one.default.value if isinstance(one.default, Enum) else one.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
