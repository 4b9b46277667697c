"""What keeps a door light."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

from opengrit.core.lazy import without


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "packed_away.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "packed_away"
    sys.modules.pop("packed_away", None)


def test_a_package_counts_as_not_installed_in_the_block_alone(package):
    with without(package):
        assert importlib.util.find_spec(package) is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(package)
    assert importlib.import_module(package).value == 1


def test_a_package_that_is_imported_already_stays(package):
    imported = importlib.import_module(package)
    with without(package):
        assert importlib.import_module(package) is imported
    assert sys.modules[package] is imported
