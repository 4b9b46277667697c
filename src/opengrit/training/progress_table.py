"""What a person sees while a model trains: a live table on a terminal, one line a step in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from opengrit.core.progress import in_notebook
from opengrit.runs.alarms import Alarm

log = logging.getLogger("opengrit")

_SHOWN = {
    "reward": "reward",
    "accuracy": "accuracy",
    "format": "format",
    "grounding_iou": "box IoU",
    "completions/mean_length": "tokens",
    "frac_reward_zero_std": "flat groups",
}
_ROWS = 12
_ALARMS = 3  # the last ones, under the table


class ProgressTable:
    """Shows rows of metrics as they come. Use as a context; `show` may be called outside one too.

    In a notebook it is a bar. With a terminal it is a table of the last steps, with the mean of each reward part and the time left; without one,
    or when `quiet`, it is one line a step through `logging`.
    """

    def __init__(self, *, num_steps: int, quiet: bool = False, console: Console | None = None) -> None:
        self._num_steps = num_steps
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._wants_table = not quiet and (console is not None or sys.stderr.isatty())
        self._wants_bar = not quiet and console is None and in_notebook()
        self._bar: Any = None  # in a notebook
        self._rows: list[Mapping[str, Any]] = []
        self._alarms: list[Alarm] = []
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []  # with the streams they wrote to
        self._started = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> ProgressTable:
        self._started = time.monotonic()
        if self._wants_bar:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._num_steps, desc="training")
        elif self._wants_table:
            stderr = sys.stderr
            self._live = Live(self._table(), console=self._console, refresh_per_second=2)
            self._live.__enter__()
            self._log_above_the_table(stderr)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._live is not None:
            for handler, stream in self._handlers:
                handler.setStream(stream)
            self._handlers = []
            self._live.__exit__(*error)
            self._live = None

    def _log_above_the_table(self, stderr: Any) -> None:
        """Our log writes through the table's console while it lives: a line past it would break the table."""
        for handler in log.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stderr:
                self._handlers.append((handler, handler.stream))
                handler.setStream(sys.stderr)  # rich has put its own there

    def show(self, row: Mapping[str, Any]) -> None:
        """Take in the metrics of one step."""
        if self._first_step is None:
            self._first_step = row["step"] - 1
        self._rows = [*self._rows, row][-_ROWS:]
        if self._bar is not None:
            self._bar.set_postfix(
                {label: _number(row.get(key)) for key, label in list(_SHOWN.items())[:4]}, refresh=False
            )
            self._bar.update(row["step"] - self._bar.n)
        elif self._live is not None:
            self._live.update(self._table())
        else:
            shown = "  ".join(f"{label} {_number(row.get(key))}" for key, label in _SHOWN.items())
            log.info(
                "step %d/%d  %s  left %s", row["step"], self._num_steps, shown, self._time_left(row["step"])
            )

    def warn(self, alarm: Alarm) -> None:
        """Take in an alarm: its kind is shown under the table from now on. Its text is for the log."""
        self._alarms.append(alarm)

    def _time_left(self, step: int) -> str:
        done = step - (self._first_step or 0)
        if done <= 0:
            return "?"
        seconds = int((time.monotonic() - self._started) / done * (self._num_steps - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def _table(self) -> Table:
        last = self._rows[-1] if self._rows else {"step": 0}
        table = Table(
            title=f"step {last['step']} of {self._num_steps}, {self._time_left(last['step'])} left",
            caption="\n".join(filter(None, [_parts(last), _alarms(self._alarms)])),
            caption_justify="left",
        )
        table.add_column("step", justify="right")
        for label in _SHOWN.values():
            table.add_column(label, justify="right")
        for row in self._rows:
            table.add_row(str(row["step"]), *(_number(row.get(key)) for key in _SHOWN))
        return table


def _parts(row: Mapping[str, Any]) -> str:
    """The means of the reward's parts in one step, which would be too many columns for a terminal of 80."""
    parts = sorted(key for key in row if key.startswith("parts/") and key.count("/") == 1)
    named = (f"{part.removeprefix('parts/').replace('_', ' ')} {_number(row[part])}" for part in parts)
    return f"parts of the reward: {', '.join(named)}" if parts else ""


def _alarms(raised: Sequence[Alarm]) -> str:
    """The last alarms by kind; what they say in full is in the log above the table and in alarms.jsonl."""
    if not raised:
        return ""
    shown = ", ".join(f"{alarm.kind.value} (step {alarm.step})" for alarm in raised[-_ALARMS:])
    more = f", {len(raised) - _ALARMS} earlier" if len(raised) > _ALARMS else ""
    return f"[bold red]alarms: {shown}{more}[/]"


def _number(value: float | None) -> str:
    """A metric for reading; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.2f}"
