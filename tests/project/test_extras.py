"""Each package of an extra that can be installed is used by our code and by a test."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TOOLS = {"dev", "docs"}  # what we work with, and nothing that a user installs
# What tests reach through our own code: a form that is posted, numbers that are scraped, a server that listens.
# A notebook's kernel is used by notebooks, which name it, and by the client that runs them in the tests.
THROUGH = {
    "python-multipart": "files={",
    "prometheus-client": '"/metrics"',
    "uvicorn": "serving(",
    "ipykernel": "NotebookClient(",
}


def text_of(*folders: str) -> str:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file != Path(__file__))


SOURCE, TESTS = text_of("src"), text_of("tests")
NOTEBOOKS = [
    page for page in (ROOT / "examples").glob("*.ipynb") if '"kernelspec"' in page.read_text("utf-8")
]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def is_used(package: str, text: str) -> bool:
    """Whether a text imports a package, or names it alone in quotes (as `find_spec("x")`, `needs("x")` or a recipe's key do)."""
    module = package.replace("-", "_")
    return (
        re.search(rf"import {module}\b|from {module}\b|[\"']{module}[\"'.:]|[\"']{package}[\"']", text)
        is not None
    )


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - TOOLS))
def test_every_package_of_an_extra_is_used_by_code_and_by_a_test(extra: str) -> None:
    packages = [name_of(requirement) for requirement in EXTRAS[extra]]
    assert packages
    used = {
        package: is_used(package, SOURCE) or (package == "ipykernel" and NOTEBOOKS) for package in packages
    }
    assert [package for package, found in used.items() if not found] == [], "no code uses these"
    tested = {package: is_used(package, TESTS) or THROUGH.get(package, "\0") in TESTS for package in packages}
    assert [package for package, found in tested.items() if not found] == [], "no test uses these"


def test_a_package_that_nothing_uses_is_found() -> None:
    assert not is_used("left-pad", SOURCE + TESTS)
    assert not is_used("left-pad", "import left_padding, right.left_pad")
    assert all(
        is_used("left-pad", text) for text in ("import left_pad.core", 'find_spec("left_pad")', "'left-pad'")
    )
