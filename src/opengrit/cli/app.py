"""The `opengrit` command: its subcommands by name, each a file of its own, and what an error becomes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from errno import EACCES, EDQUOT, EFBIG, EISDIR, ELOOP, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS
from typing import Annotated, Any

import typer

from opengrit.cli import convert as converting
from opengrit.cli import data_check, data_get, data_import, data_list, data_make, recipe
from opengrit.cli.annotate import annotate
from opengrit.cli.ask import ask
from opengrit.cli.doctor import doctor
from opengrit.cli.evaluate import evaluate
from opengrit.cli.export import export
from opengrit.cli.help import Command, Group
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


class _Commands(Group):
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
                    f"error: output needs free disk space, none is left ({error.strerror}); free some, or name a folder on another "
                    "disk",
                    err=True,
                )
                raise typer.Exit(EXIT_ERROR) from error
            if error.errno not in _REFUSALS or error.filename is None:
                raise
            typer.echo(
                f"error: a file must be readable and writable, {harmless(str(error.filename))} is not ({error.strerror}); "
                "check its path, its permissions and the free disk space",
                err=True,
            )
            raise typer.Exit(EXIT_ERROR) from error


# In the order, and under the headings, in which `opengrit --help` lists them.
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {"new": new, "doctor": doctor, "train": train, "sft": sft},
    "Measure": {"eval": evaluate, "probe": probe, "table": table, "report": report},
    "Use a model": {"ask": ask, "serve": serve, "export": export, "records": records},
    "Data": {"annotate": annotate},
}

app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Vision-language models that show their evidence: train, measure and ask them.

    `opengrit COMMAND --help` explains a command, with examples.

    Examples:

        opengrit new sheet.csv --images photos/ --out mine/

        opengrit train mine/recipe.yaml --out mine/trained

        opengrit ask photos/0001.jpg "How many dogs are there?" \\
            --model mine/trained
    """,
)
for heading, commands in _COMMANDS.items():
    for name, command in commands.items():
        app.command(name, cls=Command, rich_help_panel=heading)(command)

data = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Check or convert your data, fetch a benchmark, or write packaged data.",
)
app.add_typer(data, name="data", rich_help_panel="Data")
data.command("check", cls=Command)(data_check.check)
data.command("import", cls=Command)(data_import.import_rows)
data.command("get", cls=Command)(data_get.get)
data.command("list", cls=Command)(data_list.list_benchmarks)

make = typer.Typer(cls=Group, no_args_is_help=True, help="Write a packaged world as files like your own.")
data.add_typer(make, name="make")
make.command("stickers", cls=Command)(data_make.make_stickers)

recipes = typer.Typer(cls=Group, no_args_is_help=True, help="List, show and copy the packaged recipes.")
app.add_typer(recipes, name="recipe", rich_help_panel="Train")
recipes.command("list", cls=Command)(recipe.list_recipes)
recipes.command("show", cls=Command)(recipe.show)
recipes.command("copy", cls=Command)(recipe.copy)

convert = typer.Typer(cls=Group, no_args_is_help=True, help="Convert a model to another layout.")
app.add_typer(convert, name="convert", rich_help_panel="Use a model")
convert.command("internvl", cls=Command)(converting.internvl)


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
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass
