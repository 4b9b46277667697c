"""Makes a table's runs one after the other, each of which can resume, and writes the table when all are done."""

from __future__ import annotations

import gc
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opengrit.core.errors import DataError, RecipeError, RunError, Stopped
from opengrit.core.types import Example, Record
from opengrit.data import load_examples, require_readable
from opengrit.data.fingerprint import fingerprint
from opengrit.evaluation.continuing import ASKED, check_answered, check_model
from opengrit.evaluation.rollout import awaits_verdict, record_id
from opengrit.evaluation.run import model_origin, run_evaluation
from opengrit.experiments.made import EVALUATION, TRAINING, Made, by_model, made_by, probe
from opengrit.experiments.pages import write_pages
from opengrit.experiments.recipe import TableRecipe, TableRun
from opengrit.experiments.results import ModelRecords, TableResult, measure
from opengrit.experiments.ways import Way
from opengrit.recipes.data_section import Source
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.runs.data_file import (
    Data,
    changes_since,
    important,
    tell_renamed,
    tell_unknown,
    write_data,
)
from opengrit.runs.folder import (
    ENVIRONMENT,
    FINAL,
    RECIPE,
    RunDir,
    environment_facts,
    write_atomically,
)
from opengrit.runs.lock import lock
from opengrit.runs.origin import read_origin
from opengrit.runs.recipe_comparison import listed, recipe_changes
from opengrit.training.checkpoint_sidecar import check_files, read_sidecar

_log = logging.getLogger(__name__)


def run_table(
    recipe: TableRecipe,
    out: str | Path,
    *,
    resume_anyway: bool = False,
    judge_again: bool = False,
    quiet: bool = False,
) -> TableResult:
    """Runs the recipe in the folder `out`; returns the table and writes it to table.html, .md, .csv and .tex.

    Finished work is not repeated: a finished training is left as it is, an interrupted one resumes from its newest
    undamaged checkpoint (with `resume_anyway` also from one of another package version), and no answered question is
    asked again. `judge_again` judges the answers that are there once more, by the annotation of the rows as it is now.
    Trainings happen in this process, so that killing it leaves no process behind that still writes.
    Raises RecipeError, DataError and ModelError before anything runs, RunError where the folder holds another table, or one
    of other rows, pictures or models (but for the annotation of what is asked with `judge_again`), another process works on it or a training cannot resume, and Stopped where a signal ended one.
    """
    # One spelling of the folder, whatever the working folder: evaluations name the trained models in it.
    folder = Path(out).resolve()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"a table is made by one process, {os.environ['WORLD_SIZE']} were launched; run it without accelerate launch"
        )
    data = _examples(recipe)
    rows = _check(recipe)
    noted = {ASKED: fingerprint([example for examples in data.values() for example in examples])}
    if rows:
        noted[TRAINING] = fingerprint(rows)
    with _alone_in(folder):
        started = (folder / RECIPE).is_file()
        text = recipe.text_for(RunDir.open(folder).recipe) if started else recipe.resolved_yaml()
        if started:
            _check_same(folder, recipe)
            _check_data(folder, noted, judge_again=judge_again)
        RunDir.check(folder, recipe=text, resume=started)
        if not started:
            write_atomically(folder / RECIPE, text)
        if not (folder / ENVIRONMENT).exists():
            write_atomically(folder / ENVIRONMENT, json.dumps(environment_facts(), indent=2) + "\n")
        write_data(folder, noted)
        found = _make_all(
            recipe, folder, data, resume_anyway=resume_anyway, judge_again=judge_again, quiet=quiet
        )
        _log.info("writing the table")
        table = measure(recipe, found, data)
        write_pages(table, folder)
    return table


def table_so_far(recipe: TableRecipe, out: str | Path) -> TableResult:
    """The table of the runs that are finished, written as `run_table` does; nothing is asked or trained.

    Raises RunError where the folder holds no such table, or none of its runs is finished.
    """
    found, data = finished_runs(recipe, out)
    if not found:
        raise RunError(f"a table is written of finished runs, none in {out} is; wait for the first one")
    table = measure(recipe, found, data)
    write_pages(table, Path(out))
    return table


def finished_runs(
    recipe: TableRecipe, out: str | Path
) -> tuple[list[ModelRecords], dict[str, list[Example]]]:
    """What the finished runs of a table have come to, also while it is being made, and the rows asked of each data set.

    Nothing is asked, trained or written. Raises RunError where the folder holds no such table.
    """
    folder = Path(out).resolve()
    _check_same(folder, recipe)
    data = _examples(recipe)
    asked = [example for examples in data.values() for example in examples]
    found: dict[TableRun, Made] = {}
    for run in (run for model in recipe.models for run in recipe.runs(model)):
        here, wanted = folder / run.folder, _evaluation_of(recipe, run, folder)
        records = _complete_records(wanted, here / EVALUATION, asked, judge_again=False)
        if records is not None:
            found[run] = made_by(here, records)
    return by_model(recipe, found), data


def _make_all(
    recipe: TableRecipe,
    folder: Path,
    data: dict[str, list[Example]],
    *,
    resume_anyway: bool,
    judge_again: bool,
    quiet: bool,
) -> list[ModelRecords]:
    asked = [example for examples in data.values() for example in examples]
    plan = [run for model in recipe.models for run in recipe.runs(model)]
    found: dict[TableRun, Made] = {}
    for number, run in enumerate(plan, start=1):
        place = f"[{number}/{len(plan)}] {run}"
        records = _records_of(
            recipe,
            run,
            folder,
            asked,
            place=place,
            resume_anyway=resume_anyway,
            judge_again=judge_again,
            quiet=quiet,
        )
        here = folder / run.folder
        if recipe.is_probed(run.way):
            _log.info("%s: asking again with boxes grey", place)
            probe(here, _evaluation_of(recipe, run, folder), records, quiet=quiet)
        found[run] = made_by(here, records)
    return by_model(recipe, found)


def _records_of(
    recipe: TableRecipe,
    run: TableRun,
    folder: Path,
    examples: Sequence[Example],
    *,
    place: str,
    resume_anyway: bool,
    judge_again: bool,
    quiet: bool,
) -> list[Record]:
    here = folder / run.folder
    wanted, trained_by, trained = (
        _evaluation_of(recipe, run, folder),
        run.trained_by,
        _training_of(run, folder),
    )
    started = (here / EVALUATION / RECIPE).is_file()
    if started and trained is None:
        check_model(here / EVALUATION, model_origin(wanted))
    records = _complete_records(wanted, here / EVALUATION, examples, judge_again=judge_again)
    if records is not None and not judge_again:
        _log.info("%s: done before", place)
        return records
    if trained is not None and trained_by is not None:
        try:
            _train(recipe, trained_by, trained, place=place, resume_anyway=resume_anyway, quiet=quiet)
        except Stopped as stopped:
            raise Stopped(
                f"{place}: {stopped}; the same command continues the table", exit_code=stopped.exit_code
            ) from stopped
    _log.info("%s: asking %d questions", place, len(examples))
    _, records = run_evaluation(wanted, here / EVALUATION, judge_again=judge_again and started, quiet=quiet)
    return records


def _training_of(run: TableRun, folder: Path) -> Path | None:
    """The folder of the training whose model a run asks; None where it asks the model as it is."""
    return None if run.trained_by is None else folder / run.trained_by.folder / TRAINING


def _evaluation_of(recipe: TableRecipe, run: TableRun, folder: Path) -> EvalRecipe:
    return recipe.evaluation(run, trained=_training_of(run, folder))


def _complete_records(
    wanted: EvalRecipe, folder: Path, examples: Sequence[Example], *, judge_again: bool
) -> list[Record] | None:
    """The records of a complete evaluation; None while a question has no answer, or an answer no verdict.

    Raises RunError where an answer is to another row, but for its annotation with `judge_again`.
    """
    if not (folder / RECIPE).is_file():
        return None
    latest = {record.id: record for record in RunDir.open(folder).records()}
    check_answered(folder, latest.values(), examples, samples=wanted.eval.samples, judge_again=judge_again)
    done = {name: r for name, r in latest.items() if r.failure is None and not awaits_verdict(r)}
    ids = [record_id(e, sample=i) for e in examples for i in range(wanted.eval.samples)]
    return [done[name] for name in ids] if all(name in done for name in ids) else None


def _train(
    recipe: TableRecipe, run: TableRun, folder: Path, *, place: str, resume_anyway: bool, quiet: bool
) -> None:
    if (folder / FINAL).is_dir():
        _check_base(folder, run.model.name)
        _log.info("%s: trained before", place)
        return
    resume = (folder / RECIPE).is_file()
    resuming: dict[str, Any] = {}
    if resume:
        start = _checkpoint_to_name(folder, place=place)
        resuming = {"resume": True, "resume_anyway": resume_anyway, "resume_from": start}
    _log.info("%s: %s", place, "resuming the training" if resume else "training")
    if run.way is Way.SFT:
        from opengrit.training.sft import fine_tune

        fine_tune(recipe.fine_tuning(run), folder, **resuming)
    else:
        from opengrit.training.run import train

        train(recipe.grpo(run), folder, quiet=quiet, **resuming)
    gc.collect()  # a trainer and its callbacks know each other: it would keep its model in memory
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _check_base(folder: Path, name: str) -> None:
    """Raise RunError where a finished training of the table began with another model than that of now."""
    from opengrit.models.identity import identity_of

    origin, now = read_origin(folder), identity_of(name)
    if origin is not None and origin.model is not None and origin.model.is_another(now):
        raise RunError(
            f"a table needs the same models throughout, the training in {folder} began with {origin.model}, and "
            f"{name!r} is {now} now; restore that model, or choose another --out for a new table"
        )


def _checkpoint_to_name(folder: Path, *, place: str) -> str | None:
    """The newest undamaged checkpoint, to be named where a newer one is damaged; else None (also where there is none).

    Raises RunError where all are damaged.
    """
    checkpoints = RunDir.open(folder).checkpoints()
    for path in reversed(checkpoints):
        try:
            sidecar = read_sidecar(path)
            if sidecar is not None:
                check_files(path, sidecar)
        except RunError as error:
            _log.warning("%s: %s", place, str(error).partition("; ")[0])
            continue
        return None if path == checkpoints[-1] else path.name
    if not checkpoints:
        return None
    raise RunError(
        f"a training resumes from an undamaged checkpoint, all in {folder} are damaged (see the log); move that folder "
        "away, and the same command trains again from the start"
    )


def _check_same(folder: Path, recipe: TableRecipe) -> None:
    """Raise RunError where the table in the folder is another one: its trainings and answers would be mixed."""
    kept = RunDir.open(folder).recipe
    changes = recipe_changes(kept, recipe.text_for(kept))
    if changes:
        raise RunError(
            f"a table resumes with its own recipe, {folder} was started with another ({listed(changes)}); use "
            f"{folder / RECIPE}, or another --out for a new table"
        )


def _check_data(folder: Path, now: Data, *, judge_again: bool) -> None:
    """Raise RunError where the table in the folder is of other rows or pictures: its numbers would be of both.

    The annotation of what is asked alone may be another with `judge_again`.
    """
    changes = changes_since(folder, now)
    if changes is None:
        tell_unknown(folder)
        return
    tell_renamed(changes)
    found = important(changes)
    asked_alone = all(name == ASKED for name, one in changes.items() if one.important)
    can_judge = asked_alone and all(one.only_annotation for one in changes.values())
    if not found or (judge_again and can_judge):
        return
    again = "--judge-again to judge the kept answers by the new annotation (nothing is asked again), "
    raise RunError(
        f"a table resumes with its own rows and pictures, {folder} was started with different ones ({listed(found)}); "
        f"restore the old ones, {again if can_judge else ''}or choose another --out for a new table"
    )


# -- before anything runs --------------------------------------------------------------------------------------------


def _examples(recipe: TableRecipe) -> dict[str, list[Example]]:
    """The rows asked of each data set, by its name; all of their pictures can be opened."""
    found = {s.spec: load_examples(s.spec, s.images, table=s.table)[: recipe.limit] for s in recipe.data}
    empty = [spec for spec, examples in found.items() if not examples]
    if empty:
        raise DataError(f"a data set of a table has at least one row, {empty[0]} has none; leave it out")
    require_readable([example for examples in found.values() for example in examples])
    return found


def _check(recipe: TableRecipe) -> list[Example]:
    """Raise now what a training or a model's name would raise hours later; the rows that are learned from."""
    here = [model for model in recipe.models if model.endpoint is None]
    if here:
        from opengrit.models.resolve import resolve

        for model in here:
            resolve(model.name)
    runs = [run for model in here for run in recipe.runs(model) if run.way.learns]
    if not runs:
        return []
    from opengrit.training.settings import check_rows, check_settings, grpo_config, sft_config

    rows = _rows_of(recipe.train_data)
    if Way.SFT in recipe.ways and len(recipe.seeds) > 1 and _seeds_decide_nothing(recipe, num_rows=len(rows)):
        raise RecipeError(
            f"seeds of sft must differ, but sft.rows_per_step {recipe.sft.rows_per_step} takes all {len(rows)} rows in "
            "every step, so all seeds give the same model; lower rows_per_step"
        )
    with tempfile.TemporaryDirectory() as scratch:
        for run in runs:
            if run.way is Way.SFT:
                sft_config(recipe.fine_tuning(run).sft, scratch, num_rows=len(rows))
                continue
            wanted = recipe.grpo(run)
            learned = _rows_of(wanted.data.train)
            wanted.rubric().check(learned)
            check_rows(len(learned), wanted.train)
            check_settings(grpo_config(wanted.train, scratch), num_rows=len(learned))
    own = [e for objective in recipe.objectives.values() for e in _rows_of(objective.train_data or ())]
    return rows + [e for e in own if e not in rows]


def _rows_of(sources: Sequence[Source]) -> list[Example]:
    """The rows of some sources; all of their pictures can be opened."""
    rows = [e for s in sources for e in load_examples(s.spec, s.images, table=s.table)]
    require_readable(rows)
    return rows


def _seeds_decide_nothing(recipe: TableRecipe, *, num_rows: int) -> bool:
    """Whether nothing in fine-tuning is random: neither the order of rows nor adapters."""
    return recipe.sft.rows_per_step >= num_rows and recipe.lora is None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Locks the folder against a second table; the lock ends with the process, however that ends.

    Raises RunError where the folder cannot be made or another process works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunError(
            f"a table's folder must be writable, {folder} is not ({error.strerror}); choose another --out"
        ) from error
    try:
        lock(
            descriptor,
            refusal=(
                f"only one process at a time makes a table, another one is working in {folder}; wait until it ends, or "
                "stop it"
            ),
        )
        yield
    finally:
        os.close(descriptor)
