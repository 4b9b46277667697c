"""What a command costs: wall-clock seconds, seconds of the processor, and the most memory; interleaved ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the wall and of the processor (all threads and children that it waited for), and the peak of memory in MiB."""

    seconds: float
    processor: float
    mebibytes: float


def command_cost(command: Sequence[str], *, env: dict[str, str], cwd: Path | None = None) -> Cost:
    """A command from its start to its end, its output dropped. Raises SystemExit where it fails."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}:\n{said[-3000:]}")
    unit = 2**20 if sys.platform == "darwin" else 1024
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / unit)


def spread(values: Sequence[float]) -> str:
    """The median with the range, as "1.50 (1.40 to 1.60)"; "-" of none."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
