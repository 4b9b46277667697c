"""`opengrit` commands in a Python that has imported nothing before, so that what the libraries below print is seen too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# One command after the other, each with standard output and standard error in files of its own.
_COMMANDS = """
import json, os, sys, traceback
folder = sys.argv.pop()
with open(f"{folder}/commands") as file:
    commands = json.load(file)
for number, words in enumerate(commands):
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        written = os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(written, descriptor)
        os.close(written)
    sys.argv[1:], code = words, 0
    try:
        from opengrit.cli.app import main
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{folder}/{number}.code", "w") as file:
        file.write(str(code))
"""


@dataclass(frozen=True, slots=True)
class Printed:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> tuple[list[str], list[str]]:
        """The lines of standard output, and those of standard error."""
        return self.stdout.splitlines(), self.stderr.splitlines()


def printed_by(*commands: Sequence[object]) -> list[Printed]:
    """What each command printed; all run in one new process, in this order, because importing torch takes seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "commands").write_text(json.dumps([[str(word) for word in words] for words in commands]))
        environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", _COMMANDS, name], env=environment, check=True, timeout=500)
        return [
            Printed(
                int(code), *((folder / f"{number}.{stream}").read_text() for stream in ("stdout", "stderr"))
            )
            for number, code in enumerate((folder / f"{n}.code").read_text() for n in range(len(commands)))
        ]
