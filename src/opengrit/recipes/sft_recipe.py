"""What a recipe of supervised fine-tuning says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from opengrit.core.recipe_section import Count, NotNegative, Positive, RecipeSection
from opengrit.recipes.data_section import Data
from opengrit.recipes.model_section import Lora, Model
from opengrit.recipes.step_sizes import largest_divisor, passes_of, remedy_of_sizes
from opengrit.recipes.trackers import Project, ReportTo
from opengrit.recipes.yaml import named, read_recipe


class SftTrain(RecipeSection):
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
        description="rows in one optimizer step (our choice; with all rows the seed has no effect)",
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
    report_to: ReportTo = ()
    project: Project = "opengrit"

    def passes_per_step(self, num_processes: int) -> int:
        """Forward and backward passes that each of so many processes makes for one optimizer step. Raises RecipeError."""
        return passes_of(
            self.rows_per_step,
            "rows_per_step",
            batch=self.per_device_train_batch_size,
            num_processes=num_processes,
            section="sft",
        )

    def remedy_for(self, num_rows: int) -> str:
        """What to set where the data has fewer rows than a step: every value that then divides."""
        batch = largest_divisor(num_rows, most=self.per_device_train_batch_size)
        return remedy_of_sizes("sft", "rows_per_step", num_rows, batch, was=self.per_device_train_batch_size)

    @model_validator(mode="after")
    def _possible(self) -> SftTrain:
        if self.rows_per_step % self.per_device_train_batch_size:
            raise ValueError(
                f"rows_per_step ({self.rows_per_step}) must be divisible by per_device_train_batch_size, got "
                f"{self.per_device_train_batch_size}; set per_device_train_batch_size: "
                f"{largest_divisor(self.rows_per_step, most=self.per_device_train_batch_size)}"
            )
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps must be smaller than max_steps, got {self.warmup_steps:g} and {self.max_steps}; set "
                f"warmup_steps: {(self.max_steps - 1) // 10}"
            )
        return self


class SftRecipe(RecipeSection):
    """Everything a supervised fine-tuning does."""

    model: Annotated[Model, BeforeValidator(named)] = Field(
        description="the model to train; a bare string is its name"
    )
    data: Data = Field(description="data sets whose rows become targets")
    strategy: Literal["grounded", "sft"] = Field(
        default="grounded",
        description=(
            "prompt and form of the target: grounded is GRIT's format, sft is boxes and then the answer"
        ),
    )
    system: str | None = Field(
        default=None, description="system message; null: the model's own default (GRIT: none)"
    )
    sft: SftTrain = Field(default=SftTrain(), description="how it learns")
    lora: Lora | None = Field(default=None, description="adapters; null: all weights are trained")
    freeze_vision: bool = Field(default=False, description="freeze the vision tower")

    @field_validator("data")
    @classmethod
    def _trained_on_only(cls, value: Data) -> Data:
        if value.eval:
            raise ValueError(
                f"fine-tuning does not evaluate, data.eval names {value.eval[0].spec}; remove it and measure with "
                "opengrit eval"
            )
        return value

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_sft_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> SftRecipe:
    """The recipe in a YAML file, changed by overrides such as "sft.seed=3". Raises RecipeError as `load_recipe` does."""
    return read_recipe(SftRecipe, path, overrides)
