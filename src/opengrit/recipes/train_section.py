"""What a recipe says of how the model learns: the optimizer, the rollouts of a step, checkpoints and the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from opengrit.core.recipe_section import Count, NotNegative, Positive
from opengrit.recipes.objective import Objective
from opengrit.recipes.step_sizes import largest_divisor, passes_of, remedy_of_sizes, sizes_for
from opengrit.recipes.trackers import Project, ReportTo


class Train(Objective):
    """How it learns. Names are those of TRL's GRPOConfig where it has the field."""

    learning_rate: Positive = Field(
        default=2e-6, description="peak step size of the optimizer (GRIT section 4.2)"
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="shape of the learning rate over the steps (GRIT section 4.2)"
    )
    warmup_steps: NotNegative = Field(
        default=0.0,
        description="steps of linear warm-up; below 1 a share of all steps (released GRIT script: none)",
    )
    max_steps: Count = Field(default=200, description="optimizer steps (GRIT section 4.2)")
    num_generations: Annotated[int, Field(ge=2)] = Field(
        default=4,
        description="completions of one question, which form a group (GRIT section 4.2)",
    )
    questions_per_step: Count = Field(
        default=20, description="distinct questions in one optimizer step (GRIT: each step uses all 20 rows)"
    )
    resample_flat_groups: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description=(
            "how often, at most, a group with all answers right or all wrong is sampled again; 0: never (GRIT)"
        ),
    )
    per_device_train_batch_size: Count = Field(
        default=4,
        description="completions in one forward and backward pass of one device (released GRIT script)",
    )
    temperature: Positive = Field(
        default=0.9, description="sampling temperature of rollouts (TRL's when GRIT was released)"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="nucleus sampling: share of probability to sample from (TRL's default)"
    )
    top_k: Annotated[int, Field(ge=0)] = Field(
        default=0, description="number of likeliest tokens to sample from; 0: all (TRL's default)"
    )
    max_completion_length: Count = Field(
        default=1000, description="most tokens of one completion (released GRIT script)"
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="adamw_torch", description="optimizer (GRIT section 4.2: AdamW)"
    )
    weight_decay: NotNegative = Field(default=0.0, description="AdamW's weight decay (released GRIT script)")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="decay of AdamW's first moment (released GRIT script)"
    )
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.999, description="decay of AdamW's second moment (released GRIT script)"
    )
    max_grad_norm: NotNegative = Field(
        default=1.0, description="norm gradients are clipped to; 0: not clipped (released GRIT script)"
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations to save memory (TRL's default)"
    )
    bf16: bool = Field(default=True, description="compute in bfloat16 (released GRIT script; false on CPU)")
    vllm_mode: Literal["colocate", "server"] | None = Field(
        default=None,
        description=(
            "sample rollouts with vLLM, on the training GPUs (colocate) or by a `trl vllm-serve` (server); null: with "
            "the model itself"
        ),
    )
    vllm_server_host: str = Field(
        default="127.0.0.1", min_length=1, description="host of `trl vllm-serve` (vllm_mode: server)"
    )
    vllm_server_port: Annotated[int, Field(ge=1, lt=2**16)] = Field(
        default=8000, description="port of `trl vllm-serve` (TRL's default)"
    )
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="share of each GPU's memory for vLLM (vllm_mode: colocate; TRL's default)"
    )
    vllm_importance_sampling_correction: bool = Field(
        default=True,
        description=(
            "weight tokens by the probability ratio of the model and vLLM; costs one more pass without gradient (TRL's "
            "default)"
        ),
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=42, description="seed of data order and sampling (transformers' default)"
    )
    save_steps: Count | None = Field(
        default=50,
        description="steps between checkpoints; null: none, only the final model (released GRIT script: 50)",
    )
    keep_checkpoints: Count | None = Field(
        default=None,
        description=(
            "number of newest checkpoints to keep, older ones are deleted; null: all (nothing is ever deleted)"
        ),
    )
    keep_best: Literal["accuracy", "grounding_iou", "format"] | None = Field(
        default=None,
        description=(
            "also keep the checkpoint with the highest value of this over data.eval; null: keep only the newest"
        ),
    )
    eval_steps: Count | None = Field(
        default=50, description="steps between evaluations; null: none while training (released GRIT script)"
    )
    logging_steps: Count = Field(
        default=1, description="steps between rows of metrics (every step is written)"
    )
    report_to: ReportTo = ()
    project: Project = "opengrit"
    log_rollouts_steps: Count | None = Field(
        default=50,
        description=(
            "steps between tables of sampled rollouts with drawn boxes in the trackers of report_to; null: none"
        ),
    )

    @property
    def completions_per_step(self) -> int:
        """Completions of one optimizer step, over all devices."""
        return self.questions_per_step * self.num_generations

    def passes_per_step(self, num_processes: int) -> int:
        """Forward and backward passes that each of so many processes makes for one optimizer step. Raises RecipeError."""
        return passes_of(
            self.completions_per_step,
            "questions_per_step x num_generations",
            batch=self.per_device_train_batch_size,
            num_processes=num_processes,
            section="train",
        )

    def remedy_for(self, num_rows: int, *, num_processes: int = 1) -> str:
        """What to set where the data has fewer rows than a step asks questions: every value that then divides."""
        found = sizes_for(
            num_rows,
            self.questions_per_step,
            each=self.num_generations,
            batch=self.per_device_train_batch_size,
            num_processes=num_processes,
        )
        return (
            "add rows"
            if found is None
            else remedy_of_sizes("train", "questions_per_step", *found, was=self.per_device_train_batch_size)
        )

    @model_validator(mode="after")
    def _possible(self) -> Train:
        if problems := list(self._problems()):  # all at once: one remedy makes the section valid
            raise ValueError("; and ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        yield from self.problems()
        if self.completions_per_step % self.per_device_train_batch_size:
            size = largest_divisor(self.completions_per_step, most=self.per_device_train_batch_size)
            yield (
                f"questions_per_step x num_generations ({self.completions_per_step}) must be divisible by "
                f"per_device_train_batch_size, got {self.per_device_train_batch_size}; set per_device_train_batch_size: "
                f"{size}"
            )
        if self.resample_flat_groups and self.vllm_mode is not None:
            yield (
                "vLLM samples the same number of completions on each process, resample_flat_groups "
                f"{self.resample_flat_groups} resamples single groups; set resample_flat_groups: 0, or vllm_mode: null"
            )
        if self.warmup_steps >= self.max_steps:
            yield (
                f"warmup_steps must be smaller than max_steps, got {self.warmup_steps:g} and {self.max_steps}; set "
                f"warmup_steps: {(self.max_steps - 1) // 10}"
            )
        best = self.keep_best
        if best is not None and self.keep_checkpoints is None:
            yield (
                f"without keep_checkpoints all checkpoints are kept, keep_best is {best}; set keep_checkpoints: 1, or "
                "keep_best: null"
            )
        measured = self.eval_steps is not None and self.save_steps is not None
        if best is not None and not (measured and (self.save_steps or 0) % (self.eval_steps or 1) == 0):
            every = self.eval_steps or self.save_steps or 50
            yield (
                f"keep_best needs an evaluation of each checkpoint, it is {best} with save_steps {self.save_steps} and "
                f"eval_steps {self.eval_steps}; make save_steps a multiple of eval_steps, such as {every} for both"
            )
