"""The pages tell the truth: links lead somewhere, commands, recipes and figures exist, the floors are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from floors import FLOORS

from opengrit import load_recipe
from opengrit.recipes.register import packaged_recipe

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLOORS_ROW = re.compile(r"^\| (\d+) \| \[`(\w+)/`\]", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(page: Path) -> list[list[str]]:
    """The words of each `opengrit` command in an indented block, continued lines joined, comments left out."""
    joined = text_of(page).replace("\\\n", " ")
    return [
        shlex.split(line, comments=True) for line in re.findall(r"^ {4}(opengrit .*)$", joined, re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text_of(file), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_every_command_the_readme_shows_is_a_command() -> None:
    from opengrit.cli.app import app

    known = {command.name for command in app.registered_commands} | {g.name for g in app.registered_groups}
    shown = {words[1] for words in commands(README)}
    assert len(shown) > 8
    assert shown <= known


def test_every_recipe_the_readme_trains_is_valid_as_it_is_changed_there() -> None:
    trained = [words for words in commands(README) if words[1] == "train"]
    assert len(trained) == 2
    assert trained[0][2] == "mine/recipe.yaml"  # the reader's own
    for words in trained[1:]:
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        load_recipe(words[2], changes)


def test_every_packaged_recipe_that_the_pages_name_exists() -> None:
    named = [
        (page, words[3] if words[1] == "recipe" else words[2])
        for page in PAGES
        for words in commands(page)
        if words[1] in ("train", "sft", "table", "doctor")
        or words[1:3] in (["recipe", "copy"], ["recipe", "show"])
    ]
    assert len(named) > 12
    own = re.compile(r"mine|my|recipe\.yaml|\$")  # a reader's file
    for page, name in named:
        assert own.match(name) or packaged_recipe(name), page.name


def test_every_test_and_source_file_that_a_page_names_is_there() -> None:
    folders = ("src", "tests", "scripts", "benchmarks", "pretraining")
    files = {path: path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    tests = {path.name: text_of(path) for path in files if path.name.startswith("test_")}
    named = [
        (page.name, file, test)
        for page in PAGES
        for file, test in re.findall(r"`([\w./-]+\.py)(?:::(test_\w+))?", text_of(page))
        if not file.startswith(("my_", "file.py"))  # a reader's own
    ]
    assert len(named) > 100
    for page, file, test in named:
        assert any(path.endswith(f"/{file}") for path in files.values()), (page, file)
        assert not test or f"def {test}(" in tests[Path(file).name], (page, file, test)


def test_every_make_target_the_pages_show_is_a_target() -> None:
    makefile = text_of(ROOT / "Makefile")
    for page in (README, ROOT / "CONTRIBUTING.md"):
        targets = re.findall(r"^ {4}make ([\w-]+)", text_of(page), re.MULTILINE)
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_is_a_front_door_and_no_map() -> None:
    assert len(text_of(README).splitlines()) <= 150


def test_the_floors_in_the_architecture_are_those_of_the_code() -> None:
    rows = FLOORS_ROW.findall(text_of(ROOT / "docs" / "architecture.md"))
    assert [(int(number), name) for number, name in rows] == list(enumerate(FLOORS, start=1))
