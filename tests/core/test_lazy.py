"""A function that is imported late is the module's own when it is called, and nobody gets half a module."""

from __future__ import annotations

import importlib
import sys

import pytest

from opengrit.core.lazy import imported_late


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with a function and another name, not imported yet."""
    (tmp_path / "heavy.py").write_text("other = 7\n\ndef solve(x, *, more=0):\n    return x + other + more\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy"
    sys.modules.pop("heavy", None)


def test_the_module_is_imported_by_the_first_call_and_not_before(module):
    with imported_late(module, "solve"):
        from heavy import solve
    assert module not in sys.modules
    assert solve(1, more=2) == 10
    assert sys.modules[module].other == 7
    assert solve(1) == sys.modules[module].solve(1)


def test_a_call_in_the_block_imports_it_too(module):
    with imported_late(module, "solve"):
        from heavy import solve

        assert solve(1) == 8
        assert importlib.import_module(module).other == 7
    assert sys.modules[module].other == 7


def test_another_name_asked_of_it_is_the_modules_own(module):
    with imported_late(module, "solve"):
        from heavy import other
    assert other == 7
    assert sys.modules[module].other == 7


def test_a_name_that_it_does_not_have_is_an_error_as_ever(module):
    with imported_late(module, "solve"), pytest.raises(ImportError, match="neither"):
        from heavy import neither  # noqa: F401
    assert sys.modules[module].other == 7


def test_a_module_that_is_imported_already_stays(module):
    imported = importlib.import_module(module)
    with imported_late(module, "solve"):
        assert importlib.import_module(module) is imported
    assert sys.modules[module] is imported


def test_an_error_in_the_block_leaves_nothing_behind(module):
    with pytest.raises(ValueError, match="mine"), imported_late(module, "solve"):
        raise ValueError("mine")
    assert importlib.import_module(module).other == 7
