"""`opengrit data check`: everything that is wrong with GRIT JSONL files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer import Argument

from opengrit.cli import options
from opengrit.core.errors import RecipeError
from opengrit.core.escaping import harmless, shortened

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from opengrit.data.check import Check, DataSetCounts, FileCheck, Source, Watch

_EXIT_DOUBTFUL = 1
_EXIT_UNUSABLE = 2
_LISTED = 10  # how many missing pictures, duplicates or leaks of a kind are shown by name
_ANSWERS_SHOWN = 10
_NAME_WIDTH = 22  # of a data set, on one line: what the counts leave of 80 columns
_COUNTS = {  # headings of the table, and what of DataSetCounts they show
    "rows": "rows",
    "pictures": "images",
    "boxes": "boxes",
    "rows\nwith\nboxes": "rows_with_boxes",
    "rows\nwith\nno box": "rows_with_no_box",
    "rows\nwithout\nbboxs": "rows_without_boxes_field",
}
_Files = Annotated[list[Path], Argument(metavar="FILE...", help="JSONL files of GRIT's rows.")]
_Images = Annotated[
    list[Path] | None,
    options.data(
        metavar="FOLDER",
        help="Picture folder: once for all files, or once for each in order (default: do not look at pictures).",
    ),
]
_Against = Annotated[
    list[Path] | None,
    options.data(metavar="FILE", help="Test file that the FILEs must share nothing with; may be repeated."),
]
_AgainstImages = Annotated[
    list[Path] | None,
    options.data(metavar="FOLDER", help="Picture folder of the test files (default: that of the FILEs)."),
]


def check(
    files: _Files,
    images: _Images = None,
    against: _Against = None,
    against_images: _AgainstImages = None,
    quiet: options.NoProgress = False,
) -> None:
    """Read JSONL files of GRIT's rows to the end and list everything that is wrong with them.

    Prints the rows, pictures, boxes and answer balance of each data set; every bad row with its line, field and remedy;
    doubts about the whole file (boxes that look like x, y, width, height or thousandths, answers that are sentences or
    contradict each other); missing and unreadable pictures; wrong picture sizes; duplicates; and what training and test
    rows share (pictures are compared by content).

    Without --against, rows whose split is "train" are compared with the rows of all other splits.

    Exit code: 0 the data is good (clipped boxes, duplicates, sentences and shared questions are listed only); 1 it loads
    but misleads (a picture in training and test, a size of another shape, boxes in another convention, two answers to one
    question); 2 it does not load (bad rows, pictures missing or unreadable).

    Examples:

        opengrit data check mine.jsonl --images photos/

        opengrit data check train.jsonl --images photos/ --against test.jsonl
    """
    from opengrit.core.progress import progress_bar
    from opengrit.data.check import check as check_files

    folders = images or []
    test_folders = against_images or (folders if len(folders) == 1 else [])
    sources = _sources(files, folders, "--images")
    test_sources = _sources(against or [], test_folders, "--against-images")
    with progress_bar(quiet=quiet) as progress:
        found = check_files(sources, test_sources, watch=_watched(progress))
    console = Console(soft_wrap=True)
    for file in found.files:
        _print_file(console, file)
    _print_leaks(console, found)
    if found.unusable:
        raise typer.Exit(_EXIT_UNUSABLE)
    if found.doubtful:
        raise typer.Exit(_EXIT_DOUBTFUL)


def _watched(progress: Progress) -> Watch:
    """Moves a bar for each file's rows, and one for the pictures."""
    bars: dict[str, TaskID] = {}

    def moved(what: str, done: int, total: int | None) -> None:
        if what not in bars:
            bars[what] = progress.add_task(shortened(harmless(what)), total=None)
        progress.update(bars[what], completed=done, total=total)

    return moved


def _sources(files: list[Path], folders: list[Path], option: str) -> list[Source]:
    from opengrit.data.check import Source

    for file in files:
        if file.suffix in (".yaml", ".yml"):
            raise RecipeError(
                f"data check reads files of rows, {file} is a recipe; name its files, or run opengrit doctor {file}, which looks at "
                "them too"
            )
    if len(folders) not in (0, 1, len(files)) and files:
        raise RecipeError(
            f"{option} is given once for all files or once for each, got {len(folders)} for {len(files)} files; "
            "repeat it in the files' order"
        )
    each = folders if len(folders) == len(files) else [folders[0] if folders else None] * len(files)
    return [Source(file, folder) for file, folder in zip(files, each, strict=True)]


def _print_leaks(console: Console, found: Check) -> None:
    if found.train_rows == 0:
        console.print(
            "Leaks: not checked; name the test files with --against, or mark rows with split.",
            markup=False,
        )
        return
    console.print(
        f"Leaks: {found.train_rows} training rows against {found.test_rows} test rows", style="bold"
    )
    from opengrit.data.check import LeakKind, remedy_for_leaks

    for kind in LeakKind:
        leaks = [leak for leak in found.leaks if leak.kind is kind]
        if not leaks:
            console.print(f"{kind.value}: none", markup=False)
        _print_list(
            console, kind.value, [f"{x.test_id} and {x.train_id}: {shortened(x.shared, 200)}" for x in leaks]
        )
    if remedy := remedy_for_leaks(found.leaks, test_rows=found.test_rows):
        console.print(harmless(remedy), markup=False, highlight=False)


def _name(counts: DataSetCounts) -> str:
    return shortened(harmless(counts.dataset))


def _print_file(console: Console, file: FileCheck) -> None:
    from opengrit.data.problems import told_once

    table = Table(
        title=f"{escape(harmless(file.file))}: {file.rows} rows, {file.unique_images} pictures",
        title_justify="left",
    )
    longest = max((len(_name(counts)) for counts in file.datasets), default=0)
    table.add_column("data set", overflow="fold", min_width=min(longest, _NAME_WIDTH))
    for heading in _COUNTS:
        table.add_column(heading, justify="right")
    for counts in file.datasets:
        numbers = [str(getattr(counts, name)) for name in _COUNTS.values()]
        table.add_row(escape(_name(counts)), *numbers)
    console.print(table)
    for counts in file.datasets:
        shown = [f"{shortened(answer)!r} {number}" for answer, number in counts.answers[:_ANSWERS_SHOWN]]
        if len(counts.answers) > _ANSWERS_SHOWN:
            shown.append(f"and {len(counts.answers) - _ANSWERS_SHOWN} others")
        line = f"answers of {_name(counts)}: {', '.join(shown)}"
        console.print(harmless(line), markup=False, highlight=False)
    lines = [f"{first.severity.value}: {text}" for first, text in told_once(file.problems)]
    _print_list(console, "problems", lines, limit=None, count=len(file.problems))
    _print_list(console, "doubts", [str(doubt) for doubt in file.doubts])
    if not (file.pictures_looked_for or file.missing_images):
        line = f"pictures: not checked; {file.remedy_for_pictures}"
        console.print(harmless(line), markup=False, highlight=False)
    _print_list(console, "missing pictures", [shortened(image, 200) for image in file.missing_images])
    if file.missing_images:
        line = f"  looked for in {file.folder}; {file.remedy_for_pictures}"
        console.print(harmless(line), markup=False, highlight=False)
    _print_list(console, "unreadable pictures", file.unreadable_images)
    for fits, title in (
        (False, "pictures of another shape than their row says"),
        (True, "rescaled pictures (boxes still fit)"),
    ):
        lines = [
            f"{m.id}: {m.image} is {m.in_file.width} x {m.in_file.height}, its row says {m.in_row.width} x {m.in_row.height}"
            for m in file.size_mismatches
            if m.harmless is fits
        ]
        _print_list(console, title, lines)
    _print_list(console, "same picture and question twice", [", ".join(ids) for ids in file.duplicates])
    console.print()


def _print_list(
    console: Console,
    title: str,
    lines: Sequence[str],
    *,
    limit: int | None = _LISTED,
    count: int | None = None,
) -> None:
    """A title with the number of things (default: of lines), and the first `limit` lines; nothing where there is none."""
    if not lines:
        return
    console.print(f"{title}: {len(lines) if count is None else count}", markup=False, highlight=False)
    for line in lines[:limit]:
        console.print(f"  {harmless(line)}", markup=False, highlight=False)
    if limit is not None and len(lines) > limit:
        console.print(f"  and {len(lines) - limit} more", markup=False, highlight=False)
