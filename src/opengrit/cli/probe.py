"""`opengrit probe`: does the evidence of an evaluation run matter?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from opengrit.cli import options
from opengrit.core.errors import RecipeError, RunError
from opengrit.core.output import settle_output

if TYPE_CHECKING:
    from opengrit.core.types import Record
    from opengrit.evaluation.probes import Probe
    from opengrit.recipes.evaluation_recipe import EvalRecipe
    from opengrit.runs.folder import RunDir


_probes_panel = partial(Option, rich_help_panel="Probes")
_correlation = partial(Option, rich_help_panel="Correlation")
_Run = Annotated[Path, Argument(metavar="RUN", help="Folder of an evaluation (opengrit eval).")]
_Out = Annotated[
    Path, options.output(metavar="FOLDER", help="Folder of the probes; unfinished probes resume.")
]
_Model = Annotated[
    str | None, options.model(help="Where the model is now, if it has moved since the evaluation.")
]
_Images = Annotated[
    Path | None,
    options.data(metavar="FOLDER", help="Picture folder, if it has moved since the evaluation."),
]
_Probes = Annotated[
    str | None,
    _probes_panel(
        "--probe",
        metavar="NAME,...",
        help="What to grey out: occlude, keep, shuffle, separated by commas (default: all).",
    ),
]
_Limit = Annotated[int | None, options.data(min=1, help="Probe only the first N answers.")]
_Correlation = Annotated[
    bool, _correlation("--correlation", help="Let a vision judge compare the boxes with random ones.")
]
_Attention = Annotated[
    bool,
    _probes_panel(
        "--attention",
        help="Measure the attention to the picture while rethinking, with and without the boxes.",
    ),
]
_JudgeUrl = Annotated[
    str | None,
    _correlation(
        metavar="URL", help="Address of the judge's OpenAI-compatible endpoint (http://host:8000/v1)."
    ),
]
_JudgeModel = Annotated[str | None, _correlation(metavar="NAME", help="The judge model's name there.")]
_JudgeKey = Annotated[
    str,
    _correlation(
        metavar="VARIABLE", help="Environment variable that holds the judge's key (unset: send none)."
    ),
]
_Repeats = Annotated[int, _correlation(min=1, help="How often to ask the judge about each answer.")]


def probe(
    run: _Run,
    out: _Out,
    quiet: options.NoProgress = False,
    probes: _Probes = None,
    limit: _Limit = None,
    images: _Images = None,
    model: _Model = None,
    attention: _Attention = False,
    correlation: _Correlation = False,
    judge_url: _JudgeUrl = None,
    judge_model: _JudgeModel = None,
    judge_key_env: _JudgeKey = "OPENAI_API_KEY",
    repeats: _Repeats = 3,
) -> None:
    """Test whether an evaluation's answers depend on their boxes.

    Three probes ask the same model the same questions about partly grey pictures: occlude greys the boxes (an answer that
    depends on them changes), keep greys everything else (the answer stays), shuffle greys boxes of the same sizes at random
    places (the control). Prints necessity and sufficiency with 95 % intervals; `opengrit report RUN OUT` shows them with
    examples. --attention measures how much of the model's attention goes to the picture while it rethinks, with and without
    the boxes before it (GRIT, figure 5). --correlation asks a vision judge which boxes fit the words, the model's or random
    ones (GRIT, figure 4). Without --probe both ask no question again. The same command resumes interrupted probes. It works
    from any folder; --model and --images are for a model or pictures that have moved.

    Examples:

        opengrit probe mine/tested --out mine/probed

        opengrit probe mine/tested --out mine/probed --attention --limit 100

        opengrit probe mine/tested --out mine/probed --correlation \\
            --judge-url http://127.0.0.1:8000/v1 --judge-model my-judge
    """
    wanted = _probes(probes, default=not (correlation or attention))
    if correlation != (judge_url is not None) or correlation != (judge_model is not None):
        named = [n for n, v in (("--judge-url", judge_url), ("--judge-model", judge_model)) if v is not None]
        raise RecipeError(  # a url may hold a password: it is not repeated
            f"--correlation goes with --judge-url and --judge-model, got "
            f"{' and '.join(named) or 'none of them'} {'with' if correlation else 'without'} it; give all three or none"
        )
    judge = None
    if judge_url is not None and judge_model is not None:
        from opengrit.clients import EndpointSettings

        judge = EndpointSettings(url=judge_url, model=judge_model, api_key_env=judge_key_env)
    settle_output()
    from opengrit.evaluation.probe_run import ask_probes, measure_run, open_probes
    from opengrit.evaluation.since import with_model
    from opengrit.recipes.own_files import own_files
    from opengrit.reports.runs import recipe_of

    read = _read(run)
    records = list(islice(read.records(), limit))
    if not records:
        raise RunError(f"probes ask about answers, {run} holds none; finish the evaluation first")
    recipe = _recipe_of(read) if wanted or attention else None
    if recipe is not None and recipe.blind:
        raise RunError(
            f"probes grey parts of the pictures that were shown, {run} was asked about grey ones (--blind); probe an evaluation "
            "without --blind"
        )
    if attention and recipe is not None and recipe.endpoint is not None:
        raise RunError(
            f"attention is measured on a model in this process, {run} was answered by one at {recipe.endpoint.url}; "
            "evaluate the model's folder (opengrit eval --model) and probe that run"
        )
    records = _with_pictures(read, records, images=images)
    if recipe is not None:
        recipe = with_model(read, recipe, model=model)
    kept = open_probes(
        read, out, recipe_of(read)["evaluate"], own=() if recipe is None else own_files(recipe)
    )
    if recipe is not None and wanted:
        ask_probes(recipe, records, kept, wanted, quiet=quiet)
    if recipe is not None and attention:
        measure_run(recipe, records, kept, quiet=quiet)
    if judge is not None:
        from opengrit.evaluation.correlation import CHOICES, correlate

        choices = correlate(records, judge, kept.path / CHOICES, repeats=repeats, quiet=quiet)
        failed = sum(choice.failure is not None for choice in choices)
        if failed:
            typer.echo(
                f"{failed} comparisons failed and are left out; the same command asks them again", err=True
            )
    from opengrit.reports.probe_results import print_probe_results, read_probe_results

    print_probe_results(read_probe_results(kept, kept.path.name), Console())
    typer.echo(f"probes: {kept.path / 'records.jsonl'} (see them with: opengrit report {run} {out})")


def _probes(text: str | None, *, default: bool) -> tuple[Probe, ...]:
    """Those that are named; all or none where none is (`default`)."""
    from opengrit.evaluation.probes import Probe

    if text is None:
        return tuple(Probe) if default else ()
    names = [name.strip() for name in text.split(",")]
    known = [probe.value for probe in Probe]
    for name in names:
        if name not in known:
            raise RecipeError(f"--probe is {', '.join(known)} with commas between, got {name!r}; correct it")
    return tuple(p for p in Probe if p.value in names)


def _read(path: Path) -> RunDir:
    """The evaluation run in a folder. Raises RunError for a run of another kind."""
    from opengrit.reports.runs import recipe_of
    from opengrit.runs.folder import RunDir

    run = RunDir.open(path)
    if "evaluate" not in recipe_of(run):
        raise RunError(
            f"probes ask about an evaluation, {path} is another run; name a folder of opengrit eval"
        )
    return run


def _recipe_of(run: RunDir) -> EvalRecipe:
    from pydantic import ValidationError

    from opengrit.core.plugins import FOLDER
    from opengrit.recipes.evaluation_recipe import EvalRecipe
    from opengrit.reports.runs import recipe_of

    try:
        return EvalRecipe.model_validate(recipe_of(run)["evaluate"], context={FOLDER: str(run.path)})
    except ValidationError as error:
        raise RunError(
            f"an evaluation's recipe is what opengrit eval wrote, {run.path / 'recipe.yaml'} is not ({error.errors()[0]['msg']}); "
            "evaluate again with this version"
        ) from error


def _with_pictures(run: RunDir, records: Sequence[Record], *, images: Path | None) -> list[Record]:
    """The records with their pictures where they lie now; what changed since is told, or refused."""
    from opengrit.evaluation.since import require_same_pictures, since, tell

    if images is not None and not images.is_dir():
        raise RunError(
            f"--images is a folder that exists, {images} is none; name the one that holds the pictures"
        )
    found = since(run, records, images=images, limit=_recipe_of(run).limit)
    require_same_pictures(run, found)
    tell(
        run,
        found,
        consequence="probes of the answers about them fail and are left out: restore them, or name the folder that holds "
        "them with --images, and the same command asks them",
    )
    return list(found.records)
