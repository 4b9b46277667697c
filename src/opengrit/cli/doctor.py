"""`opengrit doctor`: what would waste a run, before it starts."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from opengrit.cli import options
from opengrit.core.escaping import harmless
from opengrit.core.output import settle_output
from opengrit.models.memory_estimate import Sharding

if TYPE_CHECKING:
    from opengrit.doctor import Area, Finding

_EXIT_WASTED = 1
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

_Recipe = Annotated[
    Path,
    Argument(
        help="Recipe of opengrit train: a YAML file, or the name of a packaged one (opengrit recipe list)."
    ),
]
_Out = Annotated[
    Path | None,
    options.output(
        metavar="FOLDER",
        help="Run folder of the training: check that it is free and has room for checkpoints.",
    ),
]
_checks = partial(Option, rich_help_panel="Checks")
_Quick = Annotated[
    bool, _checks("--quick", help="Leave out what needs the model: loading, prompts, samples.")
]
_Questions = Annotated[
    int, _checks(min=1, help="Training questions to ask the base model, eight samples each or more.")
]
_Processes = Annotated[
    int, options.machine(min=1, help="Processes that would train together, one device each.")
]
_DeviceGb = Annotated[
    float | None,
    options.machine(metavar="GB", min=1, help="Plan for GPUs with this much memory, not for this machine."),
]
_Sharding = Annotated[
    Sharding,
    options.machine(
        metavar="HOW",
        help="How the processes shard the trained model: none, zero1, zero2, zero3 (DeepSpeed ZeRO) or fsdp.",
    ),
]
_Json = Annotated[bool, options.output("--json", help="Print one JSON object and nothing else.")]


def doctor(
    recipe: _Recipe,
    overrides: options.Overrides = None,
    quick: _Quick = False,
    questions: _Questions = 8,
    num_processes: _Processes = 1,
    device_gb: _DeviceGb = None,
    sharding: _Sharding = Sharding.NONE,
    out: _Out = None,
    as_json: _Json = False,
    quiet: options.NoProgress = False,
) -> None:
    """Check a recipe, its data, its model and this machine before a run: find what would waste it, and say what to change.

    Each line says ok, warn or fail, what was found and, after an arrow, what to change. Checked are the **environment**
    (versions, GPU, packages the recipe needs), the **recipe** (settings that waste a run), the **data** (rows, pictures,
    answers, leaks), the **model** (loading, template, padding), **prompts and boxes** (lengths, frame), **samples of the
    base** (a dry run of the rewards: do completions end, do groups differ, which frame do the boxes fit), the **judge**
    (one trial question), **memory**, **disk** and **processes**. Nothing is downloaded, written or trained.

    Exit code: 0 the run can start (read the warnings); 1 it would be wasted; 2 the recipe is not valid.

    Examples:

        opengrit doctor mine/recipe.yaml

        opengrit doctor mine/recipe.yaml --out mine/trained \\
            --set train.learning_rate=1e-6

        opengrit doctor grit20-qwen2.5-vl-3b-24gb-lora \\
            --quick --device-gb 24

        opengrit doctor grit20-qwen2.5-vl-3b \\
            --device-gb 80 --num-processes 5 --sharding zero2
    """
    from opengrit.recipes.training_recipe import load_recipe

    wanted = load_recipe(recipe, overrides or [])
    settle_output()
    from opengrit.doctor import Environment, diagnose, would_be_wasted

    console = Console()
    # Rich keeps what is printed clear of a progress line on the same console, and takes it away from any other.
    progress = Console(quiet=True) if quiet else Console(stderr=True) if as_json else console
    findings: list[Finding] = []
    with _quiet_log(), progress.status("looking ...") as status:
        environment = Environment.current(num_processes=num_processes, device_gb=device_gb, sharding=sharding)

        def begin(area: Area) -> None:
            status.update(f"{area.value} ...")
            if not as_json:
                console.print(Text(area.value.capitalize(), style="bold"))

        for finding in diagnose(
            wanted, environment=environment, out=out, quick=quick, num_questions=questions, on_area=begin
        ):
            findings.append(finding)
            if not as_json:
                _print(console, finding)
    wasted = would_be_wasted(findings)
    if as_json:
        found = [finding.as_json() for finding in findings]
        typer.echo(json.dumps({"recipe": str(recipe), "wasted": wasted, "findings": found}, indent=2))
    else:
        changes = [part for override in overrides or [] for part in ("--set", override)]
        start = ["opengrit", "train", str(recipe), *changes, "--out", str(out or "runs/NAME")]
        _print_verdict(console, findings, shlex.join(start))
    if wasted:
        raise typer.Exit(_EXIT_WASTED)


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Silences our log's warnings within the block: they are findings here."""
    log = logging.getLogger("opengrit")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _print(console: Console, finding: Finding) -> None:
    """A finding with its level in a column of its own, so that lines that wrap stay beside it."""
    level = finding.level.value
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=4)
    line.add_column(overflow="fold")
    text = Text.assemble(
        (f"{finding.name}: ", "bold"), (harmless(finding.found), "dim" if level == "skipped" else "")
    )
    line.add_row(Text("--" if level == "skipped" else level, style=_STYLES[level]), text)
    if finding.remedy:
        line.add_row("", Text(f"-> {harmless(finding.remedy)}", style="cyan"))
    console.print(Padding(line, (0, 0, 0, 2), expand=False))


def _print_verdict(console: Console, findings: list[Finding], command: str) -> None:
    from opengrit.doctor import Level, count

    failed, warned = count(findings, Level.FAIL), count(findings, Level.WARN)
    skipped = count(findings, Level.SKIPPED)
    rest = f"{warned} warning{'s' if warned != 1 else ''}, {skipped} not looked at"
    console.print()
    if failed:
        names = ", ".join(dict.fromkeys(f.name for f in findings if f.level is Level.FAIL))
        text = (
            f"This run would be wasted: {failed} thing{'s' if failed != 1 else ''} to fix ({names}); {rest}."
        )
        console.print(Text(text, style="bold red"))
        return
    console.print(Text(f"Ready ({rest}). To start it:", style="bold green"))
    console.print(Text(f"  {harmless(command)}"), soft_wrap=True)
