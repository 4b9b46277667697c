"""Few-shot supervised fine-tuning: from a recipe to a fine-tuned model in a run's folder."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import RecipeError
from opengrit.core.types import Example
from opengrit.data import load_examples, require_readable
from opengrit.grounding.frames import frame_for
from opengrit.grounding.prompts import user_text
from opengrit.grounding.targets import target_text
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.runs.folder import FINAL, RunDir

if TYPE_CHECKING:
    from trl import SFTConfig

    from opengrit.models.families import Loaded
    from opengrit.training.sft_trainer import Lesson

_log = logging.getLogger(__name__)


def fine_tune(
    recipe: SftRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    resume_anyway: bool = False,
    resume_from: str | None = None,
) -> RunDir:
    """Fine-tune as the recipe says; the run's folder, with the model and its processor in `final`.

    With `resume` the run in `out` goes on from its last checkpoint, or as `opengrit.training.train` says for the other
    two; a finished run is left as it is. Everything that can be refused is refused before a model is loaded or a file is
    written. Raises RecipeError for settings that cannot apply, DataError for the data, ModelError for the model's name,
    RunError for the folder and the checkpoint, and Stopped where a signal ended the steps.
    """
    from opengrit.training import run as training
    from opengrit.training.resume import Resume, begun

    wanted = Resume.asked(resume=resume, anyway=resume_anyway, start=resume_from)
    shared = recipe.shared()
    examples = [e for source in recipe.data.train for e in load_examples(source.spec, source.images)]
    require_readable(examples)
    training.check_model(shared)
    with tempfile.TemporaryDirectory() as scratch:
        args = sft_config(recipe, scratch, num_rows=len(examples))
        text = recipe.resolved_yaml()
        if training.is_finished(out, recipe=text, resume=wanted):
            return RunDir.open(out)
        with begun(out, recipe=text, resume=wanted) as begin:
            loaded = training.load_for(shared)
            training.check_lora(loaded.model, shared)
            run = training.run_folder(out, recipe=text, seed=recipe.sft.seed, resume=wanted, begin=begin)
            _fit(recipe, run, examples, loaded=loaded, args=args, start=begin.start)
    return run


def _fit(
    recipe: SftRecipe,
    run: RunDir,
    examples: list[Example],
    *,
    loaded: Loaded,
    args: SFTConfig,
    start: Path | None,
) -> None:
    from opengrit.training.run import lora_config, save_final, take_steps
    from opengrit.training.sft_trainer import GritSFTTrainer
    from opengrit.training.trainer import freeze_vision

    if recipe.freeze_vision:
        freeze_vision(loaded)
    trainer = GritSFTTrainer(
        loaded,
        lessons_of(examples, loaded=loaded, strategy=recipe.strategy),
        args=args,
        run=run,
        peft_config=lora_config(recipe.shared(), loaded.family),
    )
    take_steps(trainer, run, max_steps=recipe.sft.max_steps, start=start)
    if trainer.accelerator.is_main_process:
        save_final(trainer, run.path / FINAL)


def lessons_of(examples: list[Example], *, loaded: Loaded, strategy: str) -> list[Lesson]:
    """Each row's prompt and target, with its boxes as the model sees the picture; the first process says how many rows have none."""
    from accelerate import PartialState

    from opengrit.sampling import Asked
    from opengrit.sampling.transformers_engine import TransformersSampler
    from opengrit.training.sft_trainer import Lesson

    preparer = TransformersSampler(loaded)
    lessons = []
    for example in examples:
        asked = Asked(example.id, example.image, user_text(strategy, example.question, family=loaded.frame))
        frame = frame_for(loaded.frame, preparer.prepare(asked).picture.seen_size)
        lessons.append(Lesson(asked, target_text(example, strategy=strategy, frame=frame)))
    without = sum(not example.boxes for example in examples)
    if without and PartialState().is_main_process:
        _log.info("%d of %d rows have no box: their targets point at nothing", without, len(examples))
    return lessons


def sft_config(recipe: SftRecipe, output_dir: str | Path, *, num_rows: int) -> SFTConfig:
    """TRL's configuration of the recipe on the processes and devices at hand. Raises RecipeError where they do not fit."""
    from trl import SFTConfig

    from opengrit.training.run import check_machine, count_processes, on_one_device, trainer_settings
    from opengrit.training.sharding import asks_for_fsdp, check_sharding

    wanted = recipe.sft
    if num_rows < wanted.rows_per_step:
        raise RecipeError(
            f"a step learns from distinct rows, sft.rows_per_step is {wanted.rows_per_step} and the data has "
            f"{num_rows} rows; lower rows_per_step to at most {num_rows} or add rows"
        )
    check_machine(wanted, section="sft")
    passes = wanted.passes_per_step(count_processes())
    if asks_for_fsdp():
        raise RecipeError(
            "supervised fine-tuning keeps whole weights on every process, FSDP is asked for; use recipes/accelerate/ddp.yaml"
        )
    settings: dict[str, Any] = wanted.model_dump(exclude={"rows_per_step", "save_steps"})
    args = SFTConfig(
        output_dir=str(output_dir),
        **settings,
        **trainer_settings(wanted),
        gradient_accumulation_steps=passes,
        max_length=None,  # nothing is cut off
        remove_unused_columns=False,
        logging_steps=1,
    )
    check_sharding(args)
    return on_one_device(args)
