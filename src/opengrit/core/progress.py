"""The bar that long work shows on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class _NotebookProgress(Progress):
    """The same tasks as bars of tqdm, which a notebook draws as widgets, or as text without ipywidgets."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self._bars: dict[TaskID, Any] = {}

    def add_task(self, description: str, *args: Any, **given: Any) -> TaskID:
        from tqdm.auto import tqdm

        task = super().add_task(description, *args, **given)
        total, done = self.tasks[-1].total, self.tasks[-1].completed
        self._bars[task] = tqdm(desc=description, total=total, initial=int(done))
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._bars[task_id].update(int(advance))

    def update(self, task_id: TaskID, **given: Any) -> None:
        super().update(task_id, **given)
        bar, task = self._bars[task_id], next(one for one in self.tasks if one.id == task_id)
        bar.total, bar.n = task.total, task.completed
        bar.refresh()

    def stop(self) -> None:
        super().stop()
        for bar in self._bars.values():
            bar.close()


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this (and not a terminal, or a script)."""
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


def progress_bar(quiet: bool) -> Progress:
    """A progress bar on standard error, or in a notebook's cell; silent where that is no terminal."""
    if in_notebook() and not quiet:
        return _NotebookProgress()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
