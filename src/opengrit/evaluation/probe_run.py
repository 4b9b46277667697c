"""A run of probes about an evaluation: its folder, and the model that answers them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from opengrit.core.plugins import OwnFile
from opengrit.core.types import Record
from opengrit.evaluation.attention import (
    ATTENTION,
    Attended,
    check_attention,
    measure_attention,
    unmeasured,
)
from opengrit.evaluation.metrics import BOOTSTRAP_SEED
from opengrit.evaluation.probes import GREY, Probe, run_probes, unasked
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.evaluation.run import NoModel, OpenModel, open_model
from opengrit.judges import RuleJudge
from opengrit.judges.breaker import Breaker
from opengrit.judges.settings import open_judge
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.runs.folder import RECIPE, RunDir, recipe_hash
from opengrit.runs.origin import Origin, read_origin, write_origin
from opengrit.runs.own_code import keep_own_code
from opengrit.sampling import SamplingSettings


def open_probes(read: RunDir, out: Path, evaluated: Mapping[str, Any], own: Sequence[OwnFile] = ()) -> RunDir:
    """The folder of an evaluation's probes: new, or the unfinished one there.

    `evaluated` is the section evaluate of the evaluation's recipe, `own` the user's files that it names.
    Raises RunError where the folder holds another run.
    """
    section = {
        "run": read.path.resolve().name,
        "recipe": recipe_hash(read.recipe),
        "grey": list(GREY),
        "seed": BOOTSTRAP_SEED,
        "evaluate": dict(evaluated),
    }
    text = yaml.safe_dump({"probe": section}, sort_keys=False)
    resume = os.path.isfile(out / RECIPE)
    run = RunDir.create(out, recipe=text, resume=resume, seeds={"probes": BOOTSTRAP_SEED})
    origin = read_origin(read.path) or Origin("", None)
    kept = keep_own_code(run.path, own)
    write_origin(run.path, replace(origin, working_folder=os.getcwd(), own_code=kept))
    return run


def ask_probes(
    recipe: EvalRecipe,
    records: Sequence[Record],
    run: RunDir,
    probes: Sequence[Probe] = tuple(Probe),
    *,
    quiet: bool,
) -> list[Record]:
    """Every record of the run of probes once what was not answered has been asked of the evaluation's model.

    No model is loaded where nothing is left to ask. Raises ModelError where there is none, and RunError as `run_probes` does.
    """
    pending = unasked(records, {record.id: record for record in run.records()}, probes)
    nobody = nullcontext(OpenModel([NoModel()], records[0].frame))
    with (
        open_model(recipe, 1) if pending else nobody as asked,
        open_judge(recipe.judge, breaker=Breaker()) as judge,
    ):
        return run_probes(
            asked.samplers[0],
            records,
            protocol=EvaluationProtocol(recipe.strategy, asked.frame, judge, recipe.rubric(), recipe.system),
            settings=replace(
                SamplingSettings(seed=recipe.seed),
                temperature=recipe.eval.temperature,
                max_new_tokens=recipe.eval.max_completion_length,
            ),
            probes=probes,
            run=run,
            questions_per_batch=recipe.eval.batch_size,
            quiet=quiet,
        )


def measure_run(recipe: EvalRecipe, records: Sequence[Record], run: RunDir, *, quiet: bool) -> list[Attended]:
    """The attention of each record in the folder of a run of probes, measured where it was not.

    No model is loaded where nothing is left to measure. Raises ModelError where there is none, and RunError as
    `measure_attention` does.
    """
    path = run.path / ATTENTION
    known = check_attention(records, path)
    if not unmeasured(records, known):
        return [known[record.id] for record in records]
    from opengrit.sampling.transformers_engine import TransformersSampler

    with open_model(recipe, 1) as asked:
        sampler = asked.samplers[0]
        assert isinstance(sampler, TransformersSampler)  # no endpoint's
        protocol = EvaluationProtocol(
            recipe.strategy, asked.frame, RuleJudge(), recipe.rubric(), recipe.system
        )
        return measure_attention(sampler, records, path, protocol=protocol, quiet=quiet)
