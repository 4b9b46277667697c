"""Every command that shows progress can be told not to."""

from __future__ import annotations

import inspect
import sys

import typer

from opengrit.cli.app import app

SHOWS_PROGRESS = ("progress", ".status(", "quiet=")


def commands(group: typer.Typer):
    yield from (command.callback for command in group.registered_commands)
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance)


def test_every_command_that_shows_progress_has_quiet():
    found = {}
    for callback in commands(app):
        source = inspect.getsource(sys.modules[callback.__module__])
        if any(word in source for word in SHOWS_PROGRESS):
            found[callback.__name__] = "quiet" in inspect.signature(callback).parameters
    assert {"train", "report", "get", "doctor", "probe"} <= found.keys()
    assert all(found.values()), [name for name, has in found.items() if not has]
