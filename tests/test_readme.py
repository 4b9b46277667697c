"""The README tells the truth: its map is the files' own first sentences, its commands exist."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from test_imports import FILES, LAYERS, SOURCE, top

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def first_sentence(file: str) -> str:
    docstring = ast.get_docstring(ast.parse((SOURCE / file).read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").strip()


def the_map() -> str:
    """The map as it should be: `python tests/test_readme.py` writes it into the README."""
    lines = ["| layer | file | what it is |", "|---|---|---|"]
    for layer, names in LAYERS.items():
        for name in names:
            files = [f for f in FILES if top(f) == name]
            shown = layer
            for file in sorted(files, key=lambda f: (f.count("/"), "__init__" not in f, f)):
                lines.append(f"| {shown} | `{file}` | {first_sentence(file)} |")
    return "\n".join(lines)


def mapped(text: str) -> str:
    found = re.search(r"<!-- map -->\n(.*?)\n<!-- end of map -->", text, re.DOTALL)
    assert found, "README.md has no map between its markers"
    return found[1]


def test_the_map_is_the_first_sentence_of_every_file():
    assert mapped(README.read_text(encoding="utf-8")) == the_map(), "run: python tests/test_readme.py"


def test_every_command_the_readme_shows_is_a_command():
    from opengrit.cli import app

    groups = {command.name for command in app.registered_commands}
    groups |= {group.name for group in app.registered_groups}
    shown = set(re.findall(r"^ {4}opengrit (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert shown
    assert shown <= groups


def test_every_make_target_the_readme_shows_is_a_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^ {4}make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    README.write_text(old.replace(mapped(old), the_map()), encoding="utf-8")
    sys.exit(0)
