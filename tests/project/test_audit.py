"""The dependency audit of `make check` finds what it says it looks for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def loaded() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


audit = loaded()
PROJECT = {
    "dependencies": ["alpha>=2"],
    "optional-dependencies": {"serve": [], "docs": [], "dev": ["beta"], "vllm": ["vast"]},
}
LOCK = "# versions\nalpha==2.1\nbeta==1.0\ngamma==0.5\n"


def packages(**changed: object) -> dict:
    """A clean environment, with packages put in (or taken out, where None)."""
    clean = {
        "alpha": audit.Package(
            "alpha", "2.1", ("gamma<1", "delta; extra == 'more'", "omega; sys_platform == 'none'"), "MIT"
        ),
        "beta": audit.Package("beta", "1.0", (), "", ("License :: OSI Approved :: BSD License",)),
        "gamma": audit.Package("gamma", "0.5", (), "Apache-2.0 OR BSD-2-Clause"),
        "opengrit": audit.Package("opengrit", "0.1.0"),
        "pip": audit.Package("pip", "23.0"),
        "nvidia-nccl-cu13": audit.Package("nvidia-nccl-cu13", "2", (), "LicenseRef-NVIDIA-Proprietary"),
        "vast": audit.Package("vast", "9", ("vaster",), "MIT"),  # what an extra outside the lock needs
        "vaster": audit.Package("vaster", "9"),
    }
    merged = clean | changed
    return {name: one for name, one in merged.items() if one is not None}


def test_an_environment_as_it_is_locked_has_no_problem() -> None:
    assert audit.problems(LOCK, PROJECT, packages()) == []


def test_with_another_python_locked_packages_may_need_others_beside_the_lock() -> None:
    alpha = audit.Package("alpha", "2.1", ("gamma<1", "newer>=3"), "MIT")
    there = packages(alpha=alpha, newer=audit.Package("newer", "3.1", (), "MIT"))
    assert len(audit.problems(LOCK, PROJECT, there)) == 2  # needed and not locked, installed and not locked
    assert audit.problems(LOCK, PROJECT, there, same_python=False) == []
    stray = there | {"stray": audit.Package("stray", "1", (), "MIT")}
    assert "stray" in audit.problems(LOCK, PROJECT, stray, same_python=False)[0]
    old = there | {"newer": audit.Package("newer", "2.9", (), "MIT")}
    assert "newer>=3" in audit.problems(LOCK, PROJECT, old, same_python=False)[0]


def test_this_checkout_has_a_lock_that_can_be_read_and_satisfies_the_project() -> None:
    versions, wrong = audit.read_lock((audit.ROOT / "requirements.lock").read_text())
    assert wrong == []
    assert len(versions) > 50


@pytest.mark.parametrize(
    "line",
    [
        "delta @ https://example.org/delta.whl", "-e .", "--index-url https://example.org/simple", "--extra-index-url https://x", "delta>=1", "delta",
        "git+https://example.org/delta", "./delta.whl", "delta==1.0 --hash=sha256:0", "alpha==2.1",
    ],
)  # fmt: skip
def test_a_lock_with_another_source_a_range_or_a_package_twice_is_refused(line: str) -> None:
    assert any(
        one.startswith("requirements.lock:5")
        for one in audit.problems(f"{LOCK}{line}\n", PROJECT, packages())
    )


@pytest.mark.parametrize(
    ("lock", "changed", "said"),
    [
        (LOCK.replace("alpha==2.1", "alpha==1.9"), {}, "pyproject.toml needs alpha>=2, locked is 1.9"),
        (LOCK.replace("gamma==0.5\n", ""), {}, "alpha 2.1 needs gamma<1, which is not locked"),
        (LOCK.replace("gamma==0.5", "gamma==1.5"), {}, "alpha 2.1 needs gamma<1, locked is 1.5"),
        (LOCK, {"beta": None}, "beta 1.0 is locked and not installed"),
        (LOCK, {"gamma": audit.Package("gamma", "0.4", (), "MIT")}, "gamma is locked at 0.5, installed is 0.4"),
        (LOCK, {"stray": audit.Package("stray", "1", (), "MIT")}, "stray 1 is installed and not locked"),
        (LOCK + "lone==1\n", {"lone": audit.Package("lone", "1", (), "MIT")}, "lone is locked and nothing needs it"),
        (LOCK, {"beta": audit.Package("beta", "1.0", (), "GPL-3.0-or-later")}, "beta 1.0 says of its licence: GPL"),
        (LOCK, {"beta": audit.Package("beta", "1.0", (), "MIT AND AGPL-3.0")}, "beta 1.0 says of its licence: MIT AND AGPL"),
        (LOCK, {"beta": audit.Package("beta", "1.0")}, "beta 1.0 says of its licence: nothing"),
    ],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_named(lock: str, changed: dict, said: str) -> None:
    found = audit.problems(lock, PROJECT, packages(**changed))
    assert any(one.startswith(said) for one in found), found
