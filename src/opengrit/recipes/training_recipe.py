"""The recipe of a training: one YAML file says everything a run does, and a wrong key is an error before anything loads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from opengrit.core.errors import RecipeError
from opengrit.core.recipe_section import Count, NotNegative, Positive, RecipeSection
from opengrit.data.tables.files import HUB
from opengrit.data.tables.settings import CocoTask, Columns, Corners, TableSettings, Units
from opengrit.judges.settings import JudgeSection, judge_section
from opengrit.recipes.asking import AskingAgain, Eval, Strategy, problems_of_asking
from opengrit.recipes.objective import Advantage, Objective
from opengrit.recipes.trackers import Project, ReportTo
from opengrit.recipes.yaml import data_source, named, parse, read_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.rewards.settings import Rewards, rubric_of, weights_of

_CALLED = "a recipe"  # what messages about keys call this kind

FrameName = Literal["pixels", "thousand", "unit"]


# Which alternative a value means is decided by its shape, so that one mistake gives one message.
Modules = Annotated[
    Annotated[Literal["all-linear"], Tag("[named]")] | Annotated[tuple[str, ...], Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[named]"),
]


class Model(RecipeSection):
    """What is trained or asked. The keys are arguments of `opengrit.models.load`."""

    name: str = Field(min_length=1, description="packaged model, folder, or hub id; no default")
    frame: FrameName | None = Field(
        default=None,
        description="coordinates the model writes; null: by the model type in its config (facts: Qwen, InternVL)",
    )
    min_pixels: Count | None = Field(
        default=None, description="smallest picture the model sees, in pixels; null: the processor's default"
    )
    max_pixels: Count | None = Field(
        default=None, description="largest picture the model sees, in pixels; null: the processor's default"
    )
    max_tiles: Count | None = Field(
        default=None,
        description=(
            "InternVL only: most tiles a picture is cut into, without the thumbnail; null: the processor's default"
        ),
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description=(
            "data type of the weights; null: float32 for training, otherwise the checkpoint's (float32 on a CPU)"
        ),
    )
    quantization: Literal["nf4"] | None = Field(
        default=None,
        description="keep frozen weights in 4 bits (bitsandbytes, double quantization); needs a GPU, and lora to train",
    )

    @model_validator(mode="after")
    def _possible(self) -> Model:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels must be at most max_pixels, got {self.min_pixels} and {self.max_pixels}; lower min_pixels"
            )
        if self.quantization is not None and self.dtype is not None:
            raise ValueError(
                f"a quantized model has no dtype, got {self.quantization} and {self.dtype}; leave one of them out"
            )
        return self


class Source(RecipeSection):
    """One data set."""

    name: str | None = Field(
        default=None,
        description=("packaged set, for example stickers/train20; null: file or hub names the data"),
    )
    file: str | None = Field(
        default=None,
        description=(
            "JSONL file, table, a folder or pattern of them, relative to the working folder; null: name or hub names "
            "the data"
        ),
    )
    hub: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "hub data set, owner/name:split or owner/name:configuration:split; null: name or file names the data"
        ),
    )
    images: str | None = Field(
        default=None,
        description="folder that the file's image paths are relative to; null: the file's folder",
    )
    columns: Columns | None = Field(
        default=None, description="a table's columns; null: found by name and content"
    )
    boxes: Corners | None = Field(
        default=None,
        description=(
            "a table's boxes are left, top, right, bottom or x, y, width, height; null: the first, with a warning if "
            "it does not fit"
        ),
    )
    box_units: Units | None = Field(
        default=None,
        description=(
            "a table's boxes are in pixels, per cent, 0 to 1 or 0 to 1000; null: pixels, with a warning if they do not "
            "fit"
        ),
    )
    coco: CocoTask = Field(
        default="counting",
        description=(
            "questions to make of COCO annotations: how many of a kind, or where the one of a kind is"
        ),
    )

    @model_validator(mode="after")
    def _possible(self) -> Source:
        if sum(value is not None for value in (self.name, self.file, self.hub)) != 1:
            raise ValueError(
                "a data set has exactly one of name, file and hub, this one has several or none; keep one"
            )
        if self.name is not None and self.images is not None:
            raise ValueError("a packaged set has its own pictures, this one has images too; leave images out")
        if self.name is not None and self.table.says_something:
            raise ValueError(
                "a packaged set takes no columns or boxes, this one names some; leave them out, or write file:"
            )
        return self

    @property
    def spec(self) -> str:
        """What `opengrit.data.load_examples` takes."""
        return self.name or self.file or f"{HUB}{self.hub}"

    @property
    def table(self) -> TableSettings:
        """How the file is read where it is a table."""
        return TableSettings(
            columns=self.columns or Columns(), corners=self.boxes, units=self.box_units, coco=self.coco
        )


class EvalSource(Source):
    """One data set that is measured on."""

    probe: bool = Field(
        default=False,
        description=(
            "while training, also probe the answers: ask again with the boxes, everything else, or random boxes grey "
            "(docs/probes.md)"
        ),
    )


class Data(RecipeSection):
    """What is learned from, and what is kept apart to measure with."""

    train: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        description="training data sets, taken together; no default"
    )
    eval: tuple[Annotated[EvalSource, BeforeValidator(data_source)], ...] = Field(
        default=(), description="evaluation data sets, each reported separately; default: none"
    )

    @field_validator("train")
    @classmethod
    def _some_data(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if not value:
            raise ValueError(
                "training needs at least one data set, got none; write stickers/train20, for example"
            )
        return value


def largest_divisor(rows: int, *, most: int) -> int:
    """The largest number that divides `rows` and is at most `most`; both are at least 1."""
    return next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)


def sizes_for(
    rows: int, asked: int, *, each: int, batch: int, num_processes: int = 1
) -> tuple[int, int] | None:
    """The questions of a step and the batch size, none above `asked` and `batch`, that so many rows of data allow.

    A question has `each` completions, which divide over the processes and into batches. None where no number does.
    """
    for questions in range(min(rows, asked), 0, -1):
        if questions * each % num_processes == 0:
            return questions, largest_divisor(questions * each // num_processes, most=batch)
    return None


def remedy_of_sizes(section: str, key: str, rows: int, batch: int, *, was: int) -> str:
    """The keys to set for a step of so many rows; the batch size only where it is not what it was."""
    also = "" if batch == was else f" and {section}.per_device_train_batch_size: {batch}"
    return f"set {section}.{key}: {rows}{also}, or add rows"


def passes_of(rows: int, called: str, *, batch: int, num_processes: int, section: str) -> int:
    """Passes that each of so many processes makes for a step of so many `rows`, `batch` at once.

    Raises RecipeError where they do not divide, with the batch size that does, if one does.
    """
    if not rows % (batch * num_processes):
        return rows // (batch * num_processes)
    if not rows % num_processes:
        size = largest_divisor(rows // num_processes, most=batch)  # no larger: it may not fit the device
        remedy = f"set {section}.per_device_train_batch_size: {size}"
    else:
        fewer = largest_divisor(rows, most=num_processes)
        size = largest_divisor(rows // fewer, most=batch)
        remedy = (
            f"start {fewer} (--num-processes {fewer}) and set {section}.per_device_train_batch_size: {size}"
        )
    raise RecipeError(
        f"{called} ({rows}) must divide evenly over {num_processes} processes of per_device_train_batch_size {batch}; "
        + remedy
    )


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


class Lora(RecipeSection):
    """Low-rank adapters; full fine-tuning where the section is null."""

    r: Count = Field(default=16, description="rank of the adapters (our choice; GRIT trains all weights)")
    alpha: Positive = Field(default=32.0, description="scale of the adapters, divided by r (usually twice r)")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="dropout before the adapters (off for RL)"
    )
    target_modules: Modules = Field(
        default="all-linear",
        description="modules that get an adapter, by name (peft's all-linear: every linear layer)",
    )


class Recipe(RecipeSection):
    """Everything a run does. The output folder is not in it: the same recipe gives the same run anywhere."""

    model: Annotated[Model, BeforeValidator(named)] = Field(
        description="the model to train; a bare string is its name"
    )
    data: Data = Field(description="data sets for training and evaluation")
    strategy: Strategy = Field(
        default="grounded",
        description="prompt: a name, file.txt or file.py:name (GRIT figure 7: grounded)",
    )
    system: str | None = Field(
        default=None, description="system message; null: the model's own default (GRIT: none)"
    )
    rewards: Rewards = Field(
        default="paper",
        description="a named set, or weights by the reward's name or file.py:name (paper: GRIT section 3.2)",
    )
    advantage: Advantage = Field(
        default=Advantage(), description="how the rewards of a group become advantages"
    )
    asking_again: AskingAgain | None = Field(
        default=None,
        description="the second questions of the rewards kept and hidden; null: none",
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(),
        description=(
            "what decides whether an answer is right; a bare name is its kind (rule: needs no network)"
        ),
    )
    train: Train = Field(default=Train(), description="how it learns")
    lora: Lora | None = Field(
        default=None, description="adapters; null: all weights are trained (released GRIT script)"
    )
    freeze_vision: bool = Field(
        default=False, description="freeze the vision tower (released GRIT script: trained)"
    )
    eval: Eval = Field(default=Eval(), description="how it is measured")

    @model_validator(mode="after")
    def _can_learn(self) -> Recipe:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                f"weights in 4 bits cannot be trained, model.quantization is {self.model.quantization} and lora is "
                "null; add lora: {}"
            )
        if self.train.keep_best is not None and not self.data.eval:
            raise ValueError(
                f"keep_best needs evaluation data, train.keep_best is {self.train.keep_best} and data.eval is empty; "
                "name a data set, or set keep_best: null"
            )
        named = {} if isinstance(self.rewards, str) else dict(weights_of(self.rewards))
        if problems := [*self.advantage.problems(self.train), *problems_of_asking(self.asking_again, named)]:
            raise ValueError("; and ".join(problems))
        return self

    def rubric(self) -> Rubric:
        """The rewards and their weights; what is your own is executed, and checked against its keywords. Raises RecipeError."""
        return rubric_of(self.rewards)

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """The SHA-256 of the resolved recipe, hexadecimal: equal for recipes that do the same."""
        return hashlib.sha256(self.resolved_yaml().encode("utf-8")).hexdigest()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file or of a packaged name, changed by overrides such as "train.seed=3" (the value is YAML too).

    Raises:
        RecipeError: the file is not readable YAML, an override is not key=value, or the result is not a possible
            recipe; every wrong key and value is listed, with its line and, for a misspelt key, the one meant.
    """
    return read_recipe(Recipe, path, overrides, called=_CALLED)


def parse_recipe(text: str, overrides: Sequence[str] = (), *, place: str = "recipe") -> Recipe:
    """The recipe in a YAML text; `place` is what messages call it. Raises RecipeError as `load_recipe` does."""
    return parse(Recipe, text, overrides, place=place, called=_CALLED)
