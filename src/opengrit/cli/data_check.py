"""`opengrit data check`: everything that is wrong with GRIT JSONL files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opengrit.core.errors import RecipeError
from opengrit.core.escaping import harmless

if TYPE_CHECKING:
    from opengrit.data.check import Check, DataSetCounts, FileCheck, LeakKind, Source

_EXIT_DOUBTFUL = 1
_EXIT_UNUSABLE = 2
_LISTED = 10  # how many missing pictures, duplicates or leaks of a kind are shown by name
_ANSWERS_SHOWN = 10
_NAME_WIDTH = 22  # of a data set, on one line: what the counts leave of 80 columns


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="GRIT JSONL files.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Image folder: once for all files, or once for each, in their order. Without it pictures are not looked for."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A test file the FILEs must share nothing with; may be repeated."),
    ] = None,
    against_images: Annotated[
        list[Path] | None,
        typer.Option(help="Image folder of the test files (default: that of the FILEs, if there is one)."),
    ] = None,
) -> None:
    """Read GRIT JSONL files to their end and say everything that is wrong with them.

    Prints rows, pictures, boxes and answer balance of each data set; every bad row with its line, field and
    remedy; missing and unreadable pictures; sizes that are not the picture's; duplicates; and what training
    rows share with test rows (pictures are compared by content).

    Without --against, rows whose split is "train" are compared with those of any other split.

    Exit code: 0 all is well (clipped boxes, duplicates and shared question texts are listed, no more);
    1 it loads but misleads (a picture in training and test, a size of another shape); 2 it does not load
    (bad rows, pictures missing or unreadable).

    Examples:

        opengrit data check mine.jsonl --images photos/

        opengrit data check train.jsonl --images photos/ --against test.jsonl
    """
    from opengrit.data.check import check as check_files

    folders = images or []
    test_folders = against_images or (folders if len(folders) == 1 else [])
    found = check_files(
        _sources(files, folders, "--images"), _sources(against or [], test_folders, "--against-images")
    )
    _print_check(Console(soft_wrap=True), found)
    if found.unusable:
        raise typer.Exit(_EXIT_UNUSABLE)
    if found.doubtful:
        raise typer.Exit(_EXIT_DOUBTFUL)


def _sources(files: list[Path], folders: list[Path], option: str) -> list[Source]:
    from opengrit.data.check import Source

    if len(folders) not in (0, 1, len(files)) and files:
        raise RecipeError(
            f"{option} is given once for all files or once for each, got {len(folders)} for {len(files)} files; "
            "repeat it in the files' order"
        )
    if len(folders) == len(files):
        return [Source(file, folder) for file, folder in zip(files, folders, strict=True)]
    return [Source(file, folders[0] if folders else None) for file in files]


def _print_check(console: Console, found: Check) -> None:
    for file in found.files:
        _print_file(console, file)
    if found.train_rows == 0:
        console.print(
            "Leaks: not looked for; name the test files with --against, or mark rows with split.",
            markup=False,
        )
        return
    console.print(
        f"Leaks: {found.train_rows} training rows against {found.test_rows} test rows", style="bold"
    )
    from opengrit.data.check import LeakKind

    for kind in LeakKind:
        _print_leaks(console, found, kind)


def _print_file(console: Console, file: FileCheck) -> None:
    table = Table(
        title=f"{escape(harmless(file.file))}: {file.rows} rows, {file.unique_images} pictures",
        title_justify="left",
    )
    longest = max((len(harmless(counts.dataset)) for counts in file.datasets), default=0)
    table.add_column("data set", overflow="fold", min_width=min(longest, _NAME_WIDTH))
    for heading in (
        "rows",
        "pictures",
        "boxes",
        "rows\nwith\nboxes",
        "rows\nwith\nno box",
        "rows\nwithout\nbboxs",
    ):
        table.add_column(heading, justify="right")
    for counts in file.datasets:
        table.add_row(escape(harmless(counts.dataset)), *map(str, _numbers(counts)))
    console.print(table)
    for counts in file.datasets:
        line = f"answers of {counts.dataset}: {_answers(counts)}"
        console.print(harmless(line), markup=False, highlight=False)
    _print_list(console, "problems", [f"{p.severity.value}: {p}" for p in file.problems], limit=None)
    if not file.pictures_looked_for:
        console.print("pictures: not looked for; name their folder with --images", markup=False)
    _print_list(console, "missing pictures", list(file.missing_images), limit=_LISTED)
    _print_list(console, "unreadable pictures", list(file.unreadable_images), limit=_LISTED)
    for fits, title in (
        (False, "pictures of another shape than their row says"),
        (True, "rescaled pictures (boxes still fit)"),
    ):
        lines = [
            f"{m.id}: {m.image} is {m.in_file.width} x {m.in_file.height}, its row says {m.in_row.width} x {m.in_row.height}"
            for m in file.size_mismatches
            if m.harmless is fits
        ]
        _print_list(console, title, lines, limit=_LISTED)
    _print_list(
        console, "same picture and question twice", [", ".join(ids) for ids in file.duplicates], limit=_LISTED
    )
    console.print()


def _numbers(counts: DataSetCounts) -> tuple[int, ...]:
    return (
        counts.rows,
        counts.images,
        counts.boxes,
        counts.rows_with_boxes,
        counts.rows_with_no_box,
        counts.rows_without_boxes_field,
    )


def _answers(counts: DataSetCounts) -> str:
    shown = [f"{answer!r} {number}" for answer, number in counts.answers[:_ANSWERS_SHOWN]]
    if len(counts.answers) > _ANSWERS_SHOWN:
        shown.append(f"and {len(counts.answers) - _ANSWERS_SHOWN} others")
    return ", ".join(shown)


def _print_leaks(console: Console, found: Check, kind: LeakKind) -> None:
    lines = [
        f"{leak.test_id} and {leak.train_id}: {leak.shared}" for leak in found.leaks if leak.kind is kind
    ]
    if not lines:
        console.print(f"{kind.value}: none", markup=False)
    _print_list(console, kind.value, lines, limit=_LISTED)


def _print_list(console: Console, title: str, lines: list[str], *, limit: int | None) -> None:
    """A title with the number of lines, and the first `limit` of them; nothing where there is none."""
    if not lines:
        return
    console.print(f"{title}: {len(lines)}", markup=False, highlight=False)
    for line in lines[:limit]:
        console.print(f"  {harmless(line)}", markup=False, highlight=False)
    if limit is not None and len(lines) > limit:
        console.print(f"  and {len(lines) - limit} more", markup=False, highlight=False)
