"""Plain English: no text of the project has a word or a turn of phrase that a reader must guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "docs", "tests", "scripts", "benchmarks", "pretraining", "examples", ".github")
WRITTEN = {".py", ".md", ".yaml", ".yml", ".js", ".css", ".html", ".j2", ".toml", ".sh", ".cff"}
# Answers of imitated models and people, and this list itself.
QUOTED = {ROOT / "tests" / "support", Path(__file__)}
# What not to write, as a pattern whose blanks may be line ends, and what to write.
AVOIDED = {
    r"mend(s|ed|ing)?": "fix",
    r"(go|goes|going|gone|went) on (with|from|where|past|after)": "continue, resume",
    r"half done": "unfinished",
    r"for ever": "without end, always",
    r"broken(-| )off": "interrupted",
    r"broke off": "ended early",
    r"(?<!are.)all the same(?! \w)": "anyway, still (or: equal)",
    r"(is|are) others than": "differ from",
    r"of its own accord": "by itself",
    r"heeded": "supported, used",
    r"learns? \w+ by heart": "memorise",
    r"(is|are) told (once|at once|in one|with)": "is reported, is listed",
    r"(is|was|are|were) none of": "is not one of, is not",
    r"what (it|they) (is|are) worth": "its value",
    r"of which no one": "none of which",
    r"no one's to": "nobody may",
    r"as (it|they) stands?": "unchanged",
    r"must be had": "is needed",
    r"(take|takes|taking|taken) (it|them|the key) out of": "remove",
    r"(bring|brings) (it|them|the old (one|ones|file|rows|picture)) back": "restore",
    r"stands? still": "stops, waits",
}


def texts() -> Iterator[tuple[Path, str]]:
    files = [f for f in ROOT.iterdir() if f.suffix in WRITTEN or f.name == "Makefile"]
    files += [f for name in FOLDERS for f in (ROOT / name).rglob("*") if f.suffix in WRITTEN]
    for file in files:
        if file.is_file() and not any(quoted in (file, *file.parents) for quoted in QUOTED):
            yield file, file.read_text(encoding="utf-8")


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Line, words and what to write, for each phrase to avoid in a text; a phrase may go over a line's end and its quotes."""
    found = []
    for avoided, better in AVOIDED.items():
        blank = r"(?:\s|\\n|\"|f\"|#)+"
        pattern = re.compile(rf"\b(?:{avoided.replace(' ', blank)})\b", re.IGNORECASE)
        for words in pattern.finditer(text):
            found.append((text.count("\n", 0, words.start()) + 1, words[0], better))
    return found


def test_no_text_of_the_project_has_a_phrase_that_a_reader_must_guess() -> None:
    read = list(texts())
    assert len(read) > 300
    found = [
        f"{file.relative_to(ROOT).as_posix()}:{line}: {words!r}, write: {better}"
        for file, text in read
        for line, words, better in found_in(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("An unfinished run is gone on with.", "gone on with"),
        ("to resume all the same", "all the same"),
        ('f"it was broken "\n        "off"', 'broken "\n        "off'),
        ("# goes on\n# from there", "goes on\n# from"),
    ],
)
def test_the_list_finds_a_phrase_and_one_that_goes_over_a_line(text: str, words: str) -> None:
    assert [one for _, one, _ in found_in(text)] == [words]


def test_the_list_leaves_plain_sentences_alone() -> None:
    assert found_in("They are all the same size. The run goes on disk; what follows stands for it.") == []
