"""How `--help` shows a command: no type behind a switch or an argument, and what a value is in a word."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

_WORDS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


class _NamedArgument(TyperArgument):
    """An argument whose name says enough: `FOLDER`, not `folder <path>`."""

    def display_type_rich(self, ctx: Any) -> str | None:
        return None


class Command(TyperCommand):
    """A command whose help names values in a word and shows `--help` in the last panel."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx))

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = "Help"
        return option


class Group(TyperGroup):
    """A group of commands whose help names values in a word."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx))


def _named(params: list[Any]) -> list[Any]:
    """The parameters, each with its word; here and not when they are made, because typer adds some late."""
    for param in params:
        if isinstance(param, TyperArgument):
            param.__class__ = _NamedArgument  # typer takes no class for an argument
            param.metavar = param.metavar or param.name.upper()
        else:
            param.metavar = value_of(param)
    return params


def value_of(option: TyperOption) -> str:
    """What stands behind an option: its own word, its choices or `N`, `NUMBER`, `TEXT`, `PATH`; nothing behind a switch."""
    if option.is_flag:
        return ""
    if option.metavar is not None:
        return option.metavar
    assert option.type_descriptor is not None
    annotation: Any = option.type_descriptor.annotation
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if issubclass(annotation, Enum):
        return "|".join(str(one.value) for one in annotation)
    return _WORDS[annotation]
