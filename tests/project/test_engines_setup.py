"""`scripts/engines.py`: an engine that cannot be had is named with the reason and is no failure; what is there is kept."""

from __future__ import annotations

import importlib.util
import re
import time
from collections import namedtuple
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "engines.py"


@pytest.fixture
def engines(tmp_path, monkeypatch):
    """The script as a module, with folders of its own and one small engine."""
    spec = importlib.util.spec_from_file_location("engines_setup", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OVERLAYS", tmp_path / ".engines")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "OVERLAY_PACKAGES", {"small": ("no-such-package-of-opengrit==1.0",)})
    return module


def run(engines, monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["engines.py", "small", *words])
    engines.main()  # an exception would end `make test-engines` before its tests
    return capsys.readouterr().out


def test_a_package_that_no_index_has_is_named_and_its_tests_are_told(engines, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = run(engines, monkeypatch, capsys)
    assert "small is not set up, its tests are skipped: ERROR: No matching distribution found" in said
    assert "No matching distribution" in (tmp_path / ".engines" / "small.reason").read_text()
    assert "no-such-package-of-opengrit" in (tmp_path / ".engines" / "small.log").read_text()
    assert not (tmp_path / ".engines" / "small").exists()


def test_a_full_disk_and_a_clock_that_has_run_out_are_reasons_too(engines, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(engines.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
        assert "it needs 0.5 GB of free disk, 0.1 GB are free" in run(engines, full, capsys)
    monkeypatch.setattr(engines.Shell, "pip", lambda self, *_: self.run("/bin/sh", "-c", "sleep 60"))
    began = time.monotonic()
    said = run(engines, monkeypatch, capsys, "--ends", str(time.time() + 1))
    assert "small is not set up, its tests are skipped: no time was left for" in said
    assert time.monotonic() - began < 20


def test_an_interrupted_engine_is_set_up_anew_and_a_finished_one_is_kept(
    engines, monkeypatch, capsys, tmp_path
):
    calls = []

    def pip(self, python, *words):
        calls.append(words)
        folder = Path(words[words.index("--target") + 1])
        assert not folder.exists()  # nothing half unpacked is left below
        folder.mkdir(parents=True)

    monkeypatch.setattr(engines.Shell, "pip", pip)
    half = tmp_path / ".engines" / "small" / "half.py"
    half.parent.mkdir(parents=True)
    half.write_text("")
    assert run(engines, monkeypatch, capsys) == run(engines, monkeypatch, capsys) == "small is ready\n"
    assert len(calls) == 1
    monkeypatch.setitem(engines.OVERLAY_PACKAGES, "small", ("another==2.0",))
    run(engines, monkeypatch, capsys)
    assert [words[-1] for words in calls] == ["no-such-package-of-opengrit==1.0", "another==2.0"]


def test_the_page_names_every_file_of_engine_tests_and_the_versions_that_are_set_up():
    root = SCRIPT.parents[1]
    pinned = SCRIPT.read_text() + (root / "requirements.lock").read_text()
    page = (root / "docs" / "scaling-checked.md").read_text()
    rows = [line for line in page.splitlines() if "tests/engines/" in line and line.startswith("|")]
    named = {Path(name).name for row in rows for name in re.findall(r"`(tests/engines/\w+\.py)`", row)}
    assert named == {path.name for path in (root / "tests" / "engines").glob("test_*.py")}
    for row in rows:
        for package, version in re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", row.split("|")[-2]):
            assert f"{package}=={version}" in pinned, row
