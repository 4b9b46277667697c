"""From a recipe to a model fine-tuned on a few examples, in a run's folder: `fine_tune`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from opengrit.core.types import Example
from opengrit.data import load_examples, require_readable
from opengrit.grounding.frames import frame_for
from opengrit.grounding.prompts import user_text
from opengrit.grounding.targets import target_text
from opengrit.models.families import Loaded
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.runs.folder import FINAL, RunDir
from opengrit.sampling import Asked
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.resume import Resume, create_run, is_finished, locked_start
from opengrit.training.settings import sft_config
from opengrit.training.sft_trainer import GritSFTTrainer, SftExample
from opengrit.training.trainable_weights import check_model, load_trainable, lora_config
from opengrit.training.training_loop import save_final, take_steps

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

    With `resume` the run in `out` continues from its last checkpoint, or as `opengrit.training.train` says for the other
    two; a finished run is left as it is. Everything that can be refused is refused before a model is loaded or a file is
    written. Raises RecipeError for settings that cannot apply, DataError for the data, ModelError for the model's name,
    RunError for the folder and the checkpoint, and Stopped where a signal ended the steps.
    """
    wanted, text = (
        Resume.asked(resume=resume, anyway=resume_anyway, checkpoint=resume_from),
        recipe.resolved_yaml(),
    )
    examples = [e for source in recipe.data.train for e in load_examples(source.spec, source.images)]
    require_readable(examples)
    check_model(recipe.model, recipe.lora)
    with tempfile.TemporaryDirectory() as scratch:
        args = sft_config(recipe.sft, scratch, num_rows=len(examples))
        if is_finished(out, recipe=text, resume=wanted):
            return RunDir.open(out)
        with locked_start(out, recipe=text, resume=wanted) as start:
            loaded = load_trainable(recipe.model, recipe.lora, freeze_vision=recipe.freeze_vision)
            run = create_run(out, recipe=text, seed=recipe.sft.seed, resume=wanted, start=start)
            trainer = GritSFTTrainer(
                loaded,
                sft_examples(examples, loaded=loaded, strategy=recipe.strategy),
                args=args,
                run=run,
                peft_config=lora_config(recipe.lora, loaded.family, freeze_vision=recipe.freeze_vision),
            )
            take_steps(trainer, run, checkpoint=start.checkpoint)
            save_final(trainer, run.path / FINAL)
    return run


def sft_examples(examples: Sequence[Example], *, loaded: Loaded, strategy: str) -> list[SftExample]:
    """Each row's prompt and target, with its boxes as the model sees the picture.

    The first process logs how many rows have no box.
    """
    preparer = TransformersSampler(loaded)
    found = []
    for example in examples:
        asked = Asked(example.id, example.image, user_text(strategy, example.question, family=loaded.frame))
        frame = frame_for(loaded.frame, preparer.prepare(asked).picture.seen_size)
        found.append(SftExample(asked, target_text(example, strategy=strategy, frame=frame)))
    without = sum(not example.boxes for example in examples)
    if without and PartialState().is_main_process:
        _log.info("%d of %d rows have no box: their targets point at nothing", without, len(examples))
    return found
