"""What MkDocs is told while it builds the site: pages of the root folder, and links to source files (mkdocs.yml names this file)."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Pages of the root folder by their name in the site; SECURITY.md beside docs/security.md needs one of its own everywhere.
ROOT_PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security-policy.md": "SECURITY.md",
}
_NAMES = {ROOT / source: name for name, source in ROOT_PAGES.items()}
_NAMED = re.compile(
    r"\[(?:[\w./-]+/)?[\w-]+\.md\](?=\(((?:[\w.-]+/)*[\w-]+\.md))"
)  # a link whose text is the page's file
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root folder, and as plain text each source file that a page links to."""
    for name, source in ROOT_PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    pages = [*(ROOT / source for source in ROOT_PAGES.values()), *DOCS.rglob("*.md")]
    linked = {
        target
        for page in pages
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if (target := target_of(page, link)) not in _NAMES and not target.is_relative_to(DOCS)
    }
    for target in sorted(linked):
        files.append(File.generated(config, source_name(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text with its links as they lead in the site, and a page's title where a link names its file."""
    file = Path(page.file.abs_src_path or DOCS / page.file.src_uri)
    moved = _LINK.sub(lambda link: in_site(file, link[0], at=page.file.src_uri), markdown)
    here = posixpath.dirname(page.file.src_uri)
    return _NAMED.sub(lambda link: f"[{title_of(posixpath.normpath(posixpath.join(here, link[1])))}]", moved)


def title_of(name: str) -> str:
    """The heading of a page by its name in the site."""
    file = ROOT / ROOT_PAGES[name] if name in ROOT_PAGES else DOCS / name
    heading = _HEADING.search(file.read_text(encoding="utf-8"))
    if heading is None:
        raise PluginError(f"a page must begin with a heading, {file.name} has none; write one: # Title")
    return heading[1]


def in_site(page: Path, link: str, *, at: str) -> str:
    """Where a page's relative link leads in the site, from the page's own name there."""
    target = target_of(page, link)
    if target in _NAMES:
        name = _NAMES[target]
    elif target.is_relative_to(DOCS):
        name = target.relative_to(DOCS).as_posix()
    else:
        name = source_name(target)
    return posixpath.relpath(name, posixpath.dirname(at) or ".")


def target_of(page: Path, link: str) -> Path:
    """The file that a relative link names; a package's folder stands for its `__init__.py`."""
    target = Path(os.path.normpath(page.parent / link))
    if target.is_dir():
        target /= "__init__.py"
    if not target.is_file():
        raise PluginError(f"a link must lead to a file, {page.name} links to {link}; correct the link")
    return target


def source_name(file: Path) -> str:
    """The name of a source file in the site, where browsers show it instead of saving it."""
    return f"source/{file.relative_to(ROOT).as_posix()}.txt"
