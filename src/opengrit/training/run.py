"""From a recipe to a model trained by reinforcement, in a run's folder: `train`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from trl import GRPOConfig

from opengrit.core.errors import RecipeError
from opengrit.core.types import Example
from opengrit.data import load_examples, require_readable
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.evaluation.run import tell_cost
from opengrit.grounding.prompts import strategy_named
from opengrit.judges.breaker import Breaker
from opengrit.judges.settings import open_judge, own_judge
from opengrit.models.sticker_models import tell_what_it_knows
from opengrit.recipes.own_files import own_files
from opengrit.recipes.training_recipe import Recipe
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import FINAL, RunDir
from opengrit.training.progress_table import ProgressTable
from opengrit.training.resume import TRAIN, Inputs, Resume, create_run, is_finished, locked_start
from opengrit.training.retention import CheckpointRetention
from opengrit.training.rollouts import JudgeSettings
from opengrit.training.settings import check_rows, check_settings, grpo_config
from opengrit.training.trackers import open_trackers
from opengrit.training.trainable_weights import check_model, load_trainable, lora_config
from opengrit.training.trainer import GritTrainer
from opengrit.training.training_evaluation import TrainingEvaluation, training_evaluations
from opengrit.training.training_loop import save_final, take_steps

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a recipe comes to before a model is loaded; all that can be refused is refused by now."""

    examples: list[Example]
    strategy: str  # a prompt of the recipe's own is read
    rubric: Rubric
    evaluations: list[TrainingEvaluation]
    args: GRPOConfig

    def rows(self) -> dict[str, Sequence[Example]]:
        """What the run learns from and what it is measured with, of each evaluation set the rows that it asks."""
        asked = {f"eval {evaluation.name}": evaluation.examples for evaluation in self.evaluations}
        return {TRAIN: self.examples, **asked}


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    resume_anyway: bool = False,
    resume_from: str | None = None,
    quiet: bool = False,
) -> RunDir:
    """Train as the recipe says; the run's folder, with the trained model and its processor in `final`.

    With `resume` the run in `out` continues from its last checkpoint with the same data order (`resume_from` names another
    one, `resume_anyway` accepts a checkpoint of another recipe, number of processes, package version, or of other rows and
    pictures, and one that has lost the state of its optimizer); a finished run is
    left as it is. Everything that can be refused is refused before a model is loaded or a file is written:
    RecipeError for settings and rewards that cannot apply, DataError for the data, ModelError for the model's name,
    RunError for the folder and the checkpoint. A signal ends the steps with a checkpoint, and Stopped is raised.
    """
    text = recipe.resolved_yaml()
    wanted = Resume.asked(resume=resume, anyway=resume_anyway, checkpoint=resume_from)
    with tempfile.TemporaryDirectory() as scratch:
        plan = _resolve(recipe, scratch)
        inputs = Inputs(plan.rows(), recipe.model.name, recipe.data.train, own_files(recipe))
        if is_finished(out, recipe=text, resume=wanted, inputs=inputs):
            return RunDir.open(out)
        with locked_start(out, recipe=text, resume=wanted, inputs=inputs) as start:
            loaded = load_trainable(recipe.model, recipe.lora, freeze_vision=recipe.freeze_vision)
            if PartialState().is_main_process:
                tell_what_it_knows(recipe.model.name, plan.examples)
            run = create_run(
                out, recipe=text, seed=recipe.train.seed, resume=wanted, start=start, inputs=inputs
            )
            if wanted.wanted and start.checkpoint is None:
                _log.warning("no checkpoint in %s: training starts at step 1", run.path)
            progress = ProgressTable(
                num_steps=recipe.train.max_steps, quiet=quiet or not PartialState().is_main_process
            )
            with (
                open_judge(recipe.judge, breaker=Breaker()) as judge,
                open_trackers(recipe.train, run, checkpoint=start.checkpoint) as trackers,
            ):
                trainer = GritTrainer(
                    loaded,
                    plan.examples,
                    args=plan.args,
                    protocol=EvaluationProtocol(
                        plan.strategy, loaded.frame, judge, plan.rubric, recipe.system
                    ),
                    run=run,
                    peft_config=lora_config(recipe.lora, loaded.family, freeze_vision=recipe.freeze_vision),
                    evaluations=plan.evaluations,
                    progress=progress,
                    trackers=trackers,
                    judge_settings=JudgeSettings(
                        recipe.judge.deadline_seconds, recipe.judge.min_judged_share
                    ),
                    retention=CheckpointRetention(recipe.train.keep_checkpoints, recipe.train.keep_best),
                    advantage=recipe.advantage,
                    asking_again=recipe.asking_again,
                    resample_flat_groups=recipe.train.resample_flat_groups,
                )
                try:
                    with progress:
                        take_steps(
                            trainer, run, checkpoint=start.checkpoint, cycle=recipe.train.num_iterations
                        )
                finally:
                    trainer.scorer.close()
                    tell_cost(judge)
            save_final(trainer, run.path / FINAL)
    return run


def _resolve(recipe: Recipe, output_dir: str) -> _Plan:
    """The recipe's data, rewards, evaluations and trainer arguments, all of them checked."""
    examples = [
        e
        for source in recipe.data.train
        for e in load_examples(source.spec, source.images, table=source.table)
    ]
    rubric = recipe.rubric()
    rubric.check(examples)
    if recipe.advantage.objects is not None and not any(example.boxes for example in examples):
        raise RecipeError(
            f"advantage.objects compares boxes with the rows' own, none of {len(examples)} rows of data.train has any; annotate "
            "some (bboxs), or set advantage.objects: null"
        )
    check_rows(len(examples), recipe.train)
    if recipe.judge.kind == "own":
        own_judge(recipe.judge)  # to refuse what cannot be used
    if recipe.asking_again is not None:
        strategy_named(recipe.asking_again.strategy)  # to refuse what cannot be used
    evaluations = training_evaluations(recipe.data.eval, recipe.eval, every=recipe.train.eval_steps)
    for asked in (examples, *(evaluation.examples for evaluation in evaluations)):
        require_readable(asked)
    check_model(recipe.model, recipe.lora)
    args = grpo_config(recipe.train, output_dir)
    check_settings(args, num_rows=len(examples))
    return _Plan(examples, strategy_named(recipe.strategy), rubric, evaluations, args)
