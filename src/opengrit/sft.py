"""Few-shot supervised fine-tuning: from a recipe to a fine-tuned model in a run's folder."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from opengrit.config import (
    Count,
    Data,
    Lora,
    Model,
    NotNegative,
    Positive,
    Recipe,
    passes_of,
)
from opengrit.data import load_examples, require_readable
from opengrit.errors import RecipeError
from opengrit.prompts import user_text
from opengrit.rollout import frame_for
from opengrit.rundir import FINAL, RunDir
from opengrit.targets import target_text
from opengrit.types import Example
from opengrit.yaml_recipe import Section, named, read_recipe

if TYPE_CHECKING:
    from trl import SFTConfig

    from opengrit.models import Loaded
    from opengrit.sft_trainer import Lesson

_log = logging.getLogger(__name__)


class SftTrain(Section):
    """How it learns from the targets. Names are those of TRL's SFTConfig where it has the field."""

    learning_rate: Positive = Field(
        default=1e-5,
        description="peak step size of the optimizer (usual for full fine-tuning; GRIT: unknown)",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="shape of the learning rate over the steps (as for GRPO)"
    )
    warmup_steps: NotNegative = Field(
        default=0.0, description="steps of linear warm-up; below 1 a share of all steps"
    )
    max_steps: Count = Field(
        default=100, description="optimizer steps (our choice: each of 20 rows 20 times)"
    )
    rows_per_step: Count = Field(
        default=4,
        description="rows of one optimizer step (our choice; with all of them the seed decides nothing)",
    )
    per_device_train_batch_size: Count = Field(
        default=4, description="rows in one forward and backward pass of one device"
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="adamw_torch", description="optimizer"
    )
    weight_decay: NotNegative = Field(default=0.0, description="AdamW's weight decay")
    max_grad_norm: NotNegative = Field(
        default=1.0, description="norm gradients are clipped to; 0: not clipped"
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations to save memory (TRL's default)"
    )
    bf16: bool = Field(default=True, description="compute in bfloat16 (false on CPU)")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=42, description="seed of the data order (transformers' default)"
    )
    save_steps: Count | None = Field(
        default=None, description="steps between checkpoints; null: none, only the final model"
    )

    def passes_per_step(self, num_processes: int) -> int:
        """Forward and backward passes that each of so many processes makes for one optimizer step. Raises RecipeError."""
        return passes_of(
            self.rows_per_step,
            "rows_per_step",
            batch=self.per_device_train_batch_size,
            num_processes=num_processes,
            section="sft",
        )

    @model_validator(mode="after")
    def _possible(self) -> SftTrain:
        if self.rows_per_step % self.per_device_train_batch_size:
            raise ValueError(
                f"rows_per_step ({self.rows_per_step}) is divided evenly by per_device_train_batch_size, "
                f"got {self.per_device_train_batch_size}; choose a divisor"
            )
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps is smaller than max_steps, got {self.warmup_steps:g} and {self.max_steps}; lower it"
            )
        return self


class SftRecipe(Section):
    """Everything a supervised fine-tuning does."""

    model: Annotated[Model, BeforeValidator(named)] = Field(
        description="what is trained; a bare string is its name"
    )
    data: Data = Field(description="data sets whose rows become targets")
    strategy: Literal["grounded", "sft"] = Field(
        default="grounded",
        description="prompt asked with, and the target's form (grounded: GRIT's format; sft: boxes, then the answer)",
    )
    sft: SftTrain = Field(default=SftTrain(), description="how it learns")
    lora: Lora | None = Field(default=None, description="adapters; null: all weights are trained")
    freeze_vision: bool = Field(default=False, description="keep the vision tower as it is")

    @field_validator("data")
    @classmethod
    def _trained_on_only(cls, value: Data) -> Data:
        if value.eval:
            raise ValueError(
                f"fine-tuning measures nothing while it learns, eval names {value.eval[0].spec}; leave it out and "
                "measure with opengrit eval"
            )
        return value

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def shared(self) -> Recipe:
        """The parts that both ways of training have (model, data, adapters, what is frozen), as a GRPO recipe."""
        return Recipe(model=self.model, data=self.data, lora=self.lora, freeze_vision=self.freeze_vision)


def load_sft_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> SftRecipe:
    """The recipe in a YAML file, changed by overrides such as "sft.seed=3". Raises RecipeError as `load_recipe` does."""
    return read_recipe(SftRecipe, path, overrides)


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
    from opengrit import training
    from opengrit.resuming import Resume, begun

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
    from opengrit.sft_trainer import GritSFTTrainer
    from opengrit.trainer import freeze_vision
    from opengrit.training import lora_config, save_final, take_steps

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

    from opengrit.samplers import Asked
    from opengrit.samplers.transformers import TransformersSampler
    from opengrit.sft_trainer import Lesson

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

    from opengrit.sharding import asks_for_fsdp, check_sharding
    from opengrit.training import check_machine, count_processes, on_one_device, trainer_settings

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
