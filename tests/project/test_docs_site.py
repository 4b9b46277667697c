"""The documentation site: it builds strictly and without a network, and its reference has every key, command and name."""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
import typer
import yaml
from scripts import script

import opengrit
from opengrit import Grounder, Run
from opengrit.cli.app import app

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
# Generated, or listing every field or every change: looked up, not read.
REFERENCES = {"recipe-keys", "commands", "api", "http-api", "records", "CHANGELOG"}
LONGEST = 1500


@dataclass
class Html(HTMLParser):
    """What a page of the site links to, loads, and can be linked by."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found and found.get("rel") != "canonical":
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    pytest.importorskip("mkdocs", reason="the site is built by mkdocs: pip install 'opengrit[docs]'")
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    read = {}
    for file in site.rglob("*.html"):
        read[file] = Html()
        read[file].feed(file.read_text(encoding="utf-8"))
    assert len(read) > 30
    return read


def test_every_link_and_anchor_of_the_site_resolves(site: Path, pages: dict[Path, Html]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or file.name == "404.html":  # that one is shown at any address
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append((file.name, link))
    assert broken == []


def test_a_page_loads_nothing_from_another_server(site: Path, pages: dict[Path, Html]) -> None:
    assert {one for page in pages.values() for one in page.loaded if urlsplit(one).netloc} == set()
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert not re.search(r"url\(['\"]?https?:|@import", styles)


def test_the_search_finds_a_key_a_command_and_a_name(site: Path) -> None:
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    for wanted, page in (
        ("train.num_generations", "recipe-keys.html"),
        ("--skip-bad-rows", "commands.html"),
        ("ask_many", "api.html"),
    ):
        assert any(wanted in one["text"] and one["location"].startswith(page) for one in found), wanted


def test_every_public_name_is_in_the_reference(site: Path, pages: dict[Path, Html]) -> None:
    anchors = pages[site / "api.html"].anchors
    functions = set(opengrit.__all__) - {"__version__"}
    assert {name for name in functions if f"opengrit.{name}" not in anchors} == set()
    assert "opengrit.__version__" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    methods = {f"{kind.__name__}.{name}" for kind in (Grounder, Run) for name in vars(kind) if name[0] != "_"}
    assert {"Grounder.ask_many", "Run.open"} <= methods
    assert {name for name in methods if f"opengrit.{name}" not in anchors} == set()


def test_every_name_that_a_page_imports_is_in_the_reference(site: Path, pages: dict[Path, Html]) -> None:
    imported = {
        f"{module}.{name.strip()}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for module, names in re.findall(
            r"^from (opengrit(?:\.\w+)*) import (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for name in names.split(",")
    }
    assert {"opengrit.Grounder", "opengrit.rewards.Attempt", "opengrit.recipes.Train"} <= imported
    assert imported - pages[site / "api.html"].anchors == set()


def test_every_recipe_key_is_in_the_reference(site: Path) -> None:
    keys = re.findall(r"^\| `([^`]+)`", script("recipe_keys").page(), re.MULTILINE)
    assert len(keys) > 100
    shown = (site / "recipe-keys.html").read_text(encoding="utf-8")
    assert [key for key in keys if f"<code>{key}</code>" not in shown] == []


@pytest.mark.parametrize("name", ["command_reference", "http_reference"])
def test_a_generated_page_is_the_one_that_its_script_writes(name: str) -> None:
    written = script(name).PAGE.read_text(encoding="utf-8")
    assert written == script(name).page(), f"{script(name).PAGE.name} is old; run scripts/{name}.py"


@pytest.mark.parametrize("name", ["rollout", "step", "frames", "prefix"])
def test_a_figure_is_the_one_that_its_script_draws_and_says_what_it_shows(name: str) -> None:
    figures = script("figures")
    assert set(figures.FIGURES) == {file.stem for file in figures.OUT.iterdir()}
    drawn, written = figures.FIGURES[name](), (figures.OUT / f"{name}.svg").read_text(encoding="utf-8")
    picture = re.compile(r"base64,[^\"]+")  # compressed by whatever zlib is there
    assert picture.sub("", written) == picture.sub("", drawn.written()), (
        f"{name}.svg is old; run scripts/figures.py"
    )
    assert ElementTree.fromstring(written).find("{*}desc") is not None
    assert len(drawn.description) > 80


def test_every_picture_of_a_page_has_a_text_for_those_who_do_not_see_it() -> None:
    shown = [
        (page.name, *found)
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for found in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(shown) > 5
    assert [one for one in shown if len(one[1].split()) < 3] == []


def commands_below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command of the program, as click runs it, by its whole name."""
    if hasattr(command, "commands"):
        for word, one in command.commands.items():
            yield from commands_below(one, f"{name} {word}")
    elif not command.hidden:
        yield name, command


def test_every_command_is_in_the_reference_with_its_options_and_an_example() -> None:
    text = script("command_reference").PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (opengrit [\w ]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    commands = dict(commands_below(typer.main.get_command(app), "opengrit"))
    assert sections.keys() == commands.keys()
    assert len(commands) > 20
    for name, command in commands.items():
        options = [one for parameter in command.params for one in parameter.opts if one.startswith("--")]
        shown = set(re.findall(r"`(--[\w-]+)", sections[name]))
        assert set(options) - {"--help"} <= shown, name
        assert re.search(rf"^    {name}\b", sections[name], re.MULTILINE), f"{name} has no example"


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))],
    ids=lambda page: page.name,
)
def test_a_page_is_short(page: Path) -> None:
    if page.stem in REFERENCES:
        pytest.skip("a reference is looked up, not read")
    number = len(page.read_text(encoding="utf-8").split())
    assert number <= LONGEST, f"{page.name} has {number} words: split it"


def test_the_version_is_the_same_everywhere() -> None:
    version = opengrit.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert {project["version"], cited["version"], newest[1]} == {version}
