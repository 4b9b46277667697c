"""The commands of a documentation page, run in their order as a reader pastes them, with less to do.

A block that cannot run on a laptop without a network, or not within a minute, stands under a line in italics that tells the reader
so, and that is what is read here: `*Needs a GPU:*`, `*Takes 40 minutes:*`. Commands under `*Runs until Ctrl-C:*` are started, run beside
those that follow, and are stopped with Ctrl-C when the page ends. Commands of a checkout (`make`, benchmarks) are none of a reader's folder.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from opengrit.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
UNTIL_STOPPED = "Runs until Ctrl-C"
_BLOCK = re.compile(
    r"""(?:^\*(?P<mark>(?:Needs|Takes|Runs)\ [^*\n]+):\*\n\n)?
        (?:^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|(?P<indented>(?:^\ {4}[^\n]*\n(?:\n+(?=\ {4}))?)+))""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_PROGRAM = re.compile(
    r"(?:#.*\n)*(?:[A-Z_]+=\S+ )*(?:opengrit|python -m|pip|curl|hf|vllm|trl|torchrun|accelerate|for)\b"
)
_FILE = re.compile(r"# ([\w-]+\.\w+)\b")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_PATIENCE_SECONDS = 120.0
# Added to a command: one step of a few questions where the page trains for minutes, six rows where it measures hundreds.
_STEP = {"max_steps": 1, "questions_per_step": 2, "per_device_train_batch_size": 16, "max_completion_length": 40}  # fmt: skip
_LESS = {
    "train": [word for key, value in _STEP.items() for word in ("--set", f"train.{key}={value}")],
    "sft": ["--set", "sft.max_steps=1"],
    "eval": ["--limit", "6", "--max-new-tokens", "60"],
    "table": ["--set", "limit=1", "--set", "eval.max_completion_length=20"],
    "probe": ["--limit", "2"],
    "ask": ["--max-new-tokens", "20"],
    "doctor": ["--quick"],
    "serve": ["--port", "0", "--no-page"],
    "annotate": ["--port", "0", "--no-browser"],
}


@dataclass(frozen=True, slots=True)
class Block:
    """What a reader pastes: commands (`language` is ""), or code; `mark` is the line in italics above it, without colon."""

    language: str
    text: str
    mark: str | None

    @property
    def is_run(self) -> bool:
        return self.mark in (None, UNTIL_STOPPED)

    @property
    def commands(self) -> list[str]:
        """The commands, continued lines joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]

    @property
    def file(self) -> str | None:
        """The file into which the code belongs, where its first line names one."""
        named = _FILE.match(self.text)
        return named[1] if self.language and named else None


def blocks_of(text: str) -> list[Block]:
    """The blocks of commands, Python and YAML of a page, in their order."""
    found = []
    for match in _BLOCK.finditer(text):
        body = match["fenced"] if match["indented"] is None else textwrap.dedent(match["indented"])
        language = "" if match["language"] in (None, "sh", "bash") else match["language"]
        if language in ("python", "yaml") or (not language and _PROGRAM.match(body)):
            found.append(Block(language, body, match["mark"]))
    return found


def page_blocks(page: str) -> list[Block]:
    return blocks_of((DOCS / page).read_text(encoding="utf-8"))


def commands_of(page: str) -> list[str]:
    """Every command of a page, those that are not run included."""
    return [line for block in page_blocks(page) if not block.language for line in block.commands]


def run_page(page: str) -> list[str]:
    """Does in the working folder what a reader does who pastes block after block; what each command printed.

    Every command must end with exit code 0. One that runs until Ctrl-C must say its address, where those after it find it
    whatever port the page names, and end with 0 when it is stopped.
    """
    printed: list[str] = []
    names: dict[str, object] = {"__name__": "__main__"}
    written: set[str] = set()
    address: str | None = None
    with ExitStack() as running:
        for block in filter(lambda one: one.is_run, page_blocks(page)):
            text = _ADDRESS.sub(address, block.text) if address else block.text
            if block.file:
                with Path(block.file).open("a" if block.file in written else "w", encoding="utf-8") as file:
                    file.write(text)
                written.add(block.file)
            elif block.language == "python":
                exec(compile(text, f"docs/{page}", "exec"), names)
            elif not block.language:
                for line in Block("", text, block.mark).commands:
                    if block.mark == UNTIL_STOPPED:
                        address = running.enter_context(_started(line))
                    else:
                        printed.append(_run(line))
    return printed


def _run(line: str) -> str:
    """What a command that ends prints; it must succeed. `> FILE` at its end is done as a shell does it."""
    words = shlex.split(line, comments=True)
    if words[0] != "opengrit":
        return subprocess.run(
            words, check=True, capture_output=True, text=True, timeout=_PATIENCE_SECONDS
        ).stdout
    words, into = (words[:-2], Path(words[-1])) if words[-2] == ">" else (words, None)
    done = CliRunner().invoke(app, [*words[1:], *_LESS.get(words[1], [])])
    assert done.exit_code == 0, (line, done.output, done.exception)
    if into is not None:
        into.write_text(done.stdout, encoding="utf-8")
    return done.output


@contextmanager
def _started(line: str) -> Iterator[str]:
    """The address that a command says which runs until Ctrl-C; it is stopped behind it."""
    words = shlex.split(line, comments=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *words, *_LESS.get(words[1], [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = threading.Timer(_PATIENCE_SECONDS, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        said = next((found[0] for line in process.stdout if (found := _ADDRESS.search(line))), None)
        assert said, (line, process.stderr.read())
        yield said
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0, (line, process.stderr.read())
    finally:
        late.cancel()
        process.kill()
        process.communicate()
