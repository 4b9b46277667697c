"""The `opengrit` command: thin, each subcommand one function; heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from opengrit.cli import data as cli_data
from opengrit.cli import doctor as cli_doctor
from opengrit.cli import models as cli_models
from opengrit.cli import probe as cli_probe
from opengrit.cli import serve as cli_serve
from opengrit.cli import table as cli_table
from opengrit.core.errors import OpenGritError, RecipeError, Stopped
from opengrit.core.escaping import harmless
from opengrit.version import __version__

if TYPE_CHECKING:
    from opengrit.data.check import Check, DataSetCounts, FileCheck, LeakKind, Source

EXIT_DOUBTFUL = 1
EXIT_ERROR = 2
# What a file system refuses to anybody: a person can mend it, so it is no bug.
_REFUSALS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
    }
)
_LISTED = 10  # how many missing pictures, duplicates or leaks of a kind are shown by name
_ANSWERS_SHOWN = 10
_NAME_WIDTH = 22  # of a data set, on one line: what the counts leave of 80 columns


class _Commands(TyperGroup):
    """Turns an error a user can mend into one line on stderr and exit code 2; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenGritError as error:
            typer.echo(f"error: {harmless(str(error))}", err=True)
            raise typer.Exit(EXIT_ERROR) from error
        except Stopped as stopped:
            if str(stopped):
                typer.echo(harmless(str(stopped)), err=True)
            raise typer.Exit(stopped.exit_code) from stopped
        except OSError as error:
            if error.errno not in _REFUSALS or error.filename is None:
                raise
            typer.echo(
                f"error: a file must be there to read or write, {harmless(str(error.filename))} is not ({error.strerror}); "
                "check its path, its permissions and the free space",
                err=True,
            )
            raise typer.Exit(EXIT_ERROR) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Vision-language models that show their evidence: train, measure and ask them.",
)
data_app = typer.Typer(no_args_is_help=True, help="Check the data you have, fetch a benchmark, or make some.")
make_app = typer.Typer(no_args_is_help=True, help="Write a packaged world as files like your own.")
app.add_typer(data_app, name="data")
data_app.add_typer(make_app, name="make")
data_app.command("get")(cli_data.get)
data_app.command("list")(cli_data.list_benchmarks)
app.command("doctor")(cli_doctor.doctor)
app.command("train")(cli_models.train)
app.command("sft")(cli_table.sft)
app.command("eval")(cli_models.evaluate)
app.command("table")(cli_table.table)
app.command("probe")(cli_probe.probe)
app.command("report")(cli_models.report)
app.command("ask")(cli_models.ask)
app.command("serve")(cli_serve.serve)


def main() -> None:
    """The entry point of the installed command."""
    app(prog_name="opengrit")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"opengrit {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


@data_app.command("check")
def data_check(
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
    from opengrit.data.check import check

    folders = images or []
    test_folders = against_images or (folders if len(folders) == 1 else [])
    found = check(
        _sources(files, folders, "--images"), _sources(against or [], test_folders, "--against-images")
    )
    _print_check(Console(soft_wrap=True), found)
    if found.unusable:
        raise typer.Exit(EXIT_ERROR)
    if found.doubtful:
        raise typer.Exit(EXIT_DOUBTFUL)


@make_app.command("stickers")
def make_stickers(
    out: Annotated[Path, typer.Option(help="Folder to write to; nothing in it is overwritten.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="Set to write, may be repeated (default: all)."),
    ] = None,
) -> None:
    """Write sticker world as GRIT JSONL and PNG files: OUT/NAME.jsonl beside OUT/images.

    The same files come out on every machine. Every other command reads them as it reads your own data.

    Examples:

        opengrit data make stickers --out stickers/

        opengrit data make stickers --out stickers/ --set train20 --set count
    """
    from opengrit.data import stickers

    for name in sets or stickers.SET_NAMES:
        written = stickers.write(name, out)
        typer.echo(f"{written} (pictures in {out / 'images'})")


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
