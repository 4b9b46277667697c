"""The `opengrit` command: its subcommands by name, each a file of its own, and what an error becomes."""

from __future__ import annotations

import io
import sys
from errno import EACCES, EDQUOT, EFBIG, EISDIR, ELOOP, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from opengrit.cli import convert as converting
from opengrit.cli import data_check, data_get, data_import, data_list, data_make, recipe
from opengrit.cli.annotate import annotate
from opengrit.cli.ask import ask
from opengrit.cli.doctor import doctor
from opengrit.cli.evaluate import evaluate
from opengrit.cli.export import export
from opengrit.cli.new import new
from opengrit.cli.probe import probe
from opengrit.cli.records import records
from opengrit.cli.report import report
from opengrit.cli.serve import serve
from opengrit.cli.sft import sft
from opengrit.cli.table import table
from opengrit.cli.train import train
from opengrit.core.collector import leave_to_the_system
from opengrit.core.errors import OpenGritError, Stopped
from opengrit.core.escaping import harmless
from opengrit.version import __version__

EXIT_ERROR = 2
# What a file system refuses to anybody: a person can fix it, so it is no bug.
_FULL = (ENOSPC, EDQUOT, EFBIG)  # met while writing, where the error names no file
_REFUSALS = (EACCES, EPERM, EROFS, ENOSPC, EDQUOT, ENAMETOOLONG, ENOTDIR, EISDIR, ELOOP)


class _Commands(TyperGroup):
    """Turns an error a user can fix into one line on stderr and exit code 2; a bug keeps its traceback."""

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
            if error.errno in _FULL and error.filename is None:
                typer.echo(
                    f"error: there must be space for what is written, there is none where this writes ({error.strerror}); free "
                    "some, or name a place on another disk",
                    err=True,
                )
                raise typer.Exit(EXIT_ERROR) from error
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
app.command("new")(new)
app.command("doctor")(doctor)
app.command("train")(train)
app.command("sft")(sft)
app.command("eval")(evaluate)
app.command("table")(table)
app.command("probe")(probe)
app.command("report")(report)
app.command("records")(records)
app.command("export")(export)
app.command("ask")(ask)
app.command("serve")(serve)
app.command("annotate")(annotate)

data = typer.Typer(
    no_args_is_help=True, help="Check or convert the data you have, fetch a benchmark, or make some."
)
app.add_typer(data, name="data")
data.command("check")(data_check.check)
data.command("import")(data_import.import_rows)
data.command("get")(data_get.get)
data.command("list")(data_list.list_benchmarks)

make = typer.Typer(no_args_is_help=True, help="Write a packaged world as files like your own.")
data.add_typer(make, name="make")
make.command("stickers")(data_make.make_stickers)

recipes = typer.Typer(no_args_is_help=True, help="The recipes that come with the package: list, show, copy.")
app.add_typer(recipes, name="recipe")
recipes.command("list")(recipe.list_recipes)
recipes.command("show")(recipe.show)
recipes.command("copy")(recipe.copy)

convert = typer.Typer(no_args_is_help=True, help="Write a model's folder in another layout.")
app.add_typer(convert, name="convert")
convert.command("internvl")(converting.internvl)


def main() -> None:
    """The entry point of the installed command."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a terminal without some letter shows "?" in its place, as stderr does
        sys.stdout.reconfigure(errors="replace")
    leave_to_the_system()
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
