"""What each process of a training does: the command, and an end whose cause the launcher can read."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

from opengrit.cli import app as cli
from opengrit.cli.launch import BUG, REPORT
from opengrit.runs.folder import write_atomically


def main() -> None:
    """Run the command that this process was started with."""
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            _leave(end.code if isinstance(end.code, int) else BUG)
        raise
    except Exception:  # a bug, or a process that this one worked with is gone; the launcher says which
        report = {"at": time.monotonic(), "text": traceback.format_exc()}
        write_atomically(Path(os.environ[REPORT]), json.dumps(report))
        _leave(BUG)


def _leave(code: int) -> NoReturn:
    """Ends this process at once: its group's threads could abort an interpreter that tidies up, or wait for others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_the_launcher() -> None:
    while os.read(0, 1):  # nothing is ever sent
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
