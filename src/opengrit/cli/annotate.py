"""`opengrit annotate`: twenty rows of one's own, made by hand on a page of this machine."""

from __future__ import annotations

import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from opengrit.cli import options
from opengrit.cli.serve import check_installed
from opengrit.core.errors import DataError, RecipeError
from opengrit.core.escaping import harmless
from opengrit.core.output import settle_log

if TYPE_CHECKING:
    from opengrit.annotation.app import Session

_HOST = "127.0.0.1"
_GRACE_SECONDS = 2.0

_Folder = Annotated[Path, Argument(help="Picture folder; its subfolders are included.")]
_Out = Annotated[
    Path, options.output(metavar="FILE", help="JSONL file for the rows; an existing file is continued.")
]
_Dataset = Annotated[
    str | None,
    options.output(
        metavar="NAME", help="Data set name of new rows (default: the file's name without extension)."
    ),
]
_page = partial(Option, rich_help_panel="Page")
_Port = Annotated[int, _page(min=0, max=65535, help="Port on this machine; 0 takes a free one.")]
_NoBrowser = Annotated[bool, _page("--no-browser", help="Print the address and open no browser.")]


def annotate(
    folder: _Folder, out: _Out, dataset: _Dataset = None, port: _Port = 7861, no_browser: _NoBrowser = False
) -> None:
    """Write rows by hand: a page shows picture after picture and takes a question, an answer and optional boxes.

    Saving a row writes it to OUT at once; the same command continues an earlier session. The page shows the balance of
    answers and of question kinds, and says when you have twenty good rows. Only this machine can open it. Ctrl-C stops it.

    Examples:

        opengrit annotate photos/ --out mine.jsonl

        opengrit annotate photos/ --out mine.jsonl --no-browser --port 8000
    """
    check_installed(page=False)
    from opengrit.annotation.app import Session, build_app
    from opengrit.annotation.pictures import picture_names
    from opengrit.annotation.row_file import RowFile
    from opengrit.serving.run import address, bind, run_until_stopped
    from opengrit.serving.security import Access

    if out.suffix != ".jsonl":
        raise RecipeError(f"rows are written to a JSONL file, got --out {out}; end its name in .jsonl")
    if out.is_dir():
        raise DataError(f"rows are written to a file, --out {out} is a folder; name a file in it")
    name = dataset if dataset is not None else out.stem
    if not name.strip() or not name.isprintable():
        raise RecipeError(f"a data set has a name that can be printed, got {name!a}; give one with --dataset")
    settle_log()
    pictures = picture_names(folder)
    listening = bind(_HOST, port)
    session = Session(folder, pictures, RowFile(out), name.strip())
    where = address(listening)

    def announce() -> None:
        rows = len(session.rows.rows)
        begun = f"; {rows} row{'s' if rows > 1 else ''} from before" if rows else ""
        typer.echo(
            f"{len(pictures)} pictures of {folder} at {where}, rows go to {out}{begun}; Ctrl-C stops it"
        )
        if not no_browser:
            webbrowser.open(where)

    run_until_stopped(
        build_app(session, Access.bound_to(_HOST)),
        listening,
        grace_seconds=_GRACE_SECONDS,
        ready=announce,
        clean_up=lambda: _say_how_to_go_on(session),
    )


def _say_how_to_go_on(session: Session) -> None:
    now, file = session.balance, session.rows.path
    typer.echo(f"{len(now.rows)} rows in {harmless(str(file))}, {now.num_good} of them good")
    for command in session.next_commands if now.rows else ():
        typer.echo(f"  {harmless(command)}")
