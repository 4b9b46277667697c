"""Settings: a recipe's section as TRL's arguments, and checks for what this machine or our trainers cannot do."""

from __future__ import annotations

import importlib.util
import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from opengrit.core.errors import ModelError, RecipeError
from opengrit.recipes.sft_recipe import SftTrain
from opengrit.recipes.train_section import Train
from opengrit.training.rollouts import STOP
from opengrit.training.sharding import asks_for_fsdp, check_sharding
from opengrit.training.trackers import check_installed

_PATIENCE = timedelta(minutes=30)  # for one another: the first process evaluates while the others wait


def grpo_config(section: Train, output_dir: str | Path) -> GRPOConfig:
    """TRL's arguments for a reinforcement learning section. Raises RecipeError where they do not fit this machine."""
    check_machine(section, name="train")
    if section.vllm_mode is not None and importlib.util.find_spec("vllm") is None:
        raise RecipeError(
            f"train.vllm_mode {section.vllm_mode} needs vllm, which is not installed; install opengrit[vllm] or set "
            "train.vllm_mode: null"
        )
    ours = {
        "questions_per_step",
        "eval_steps",
        "save_steps",
        "keep_checkpoints",
        "keep_best",
        "resample_flat_groups",
    }
    ours |= {
        "report_to",
        "project",
        "log_rollouts_steps",
    }  # trackers have the run's name, which comes with its folder
    ours |= {name for name in type(section).model_fields if name.startswith("vllm_")}
    args = GRPOConfig(**_common(section, output_dir, ours), **vllm_settings(section))
    return on_one_device(args)


def sft_config(section: SftTrain, output_dir: str | Path, *, num_rows: int) -> SFTConfig:
    """TRL's arguments for a supervised fine-tuning section. Raises RecipeError where they do not fit machine and data."""
    if num_rows < section.rows_per_step:
        raise RecipeError(
            f"a step learns from distinct rows, sft.rows_per_step is {section.rows_per_step} and the data has "
            f"{num_rows} rows; {section.remedy_for(num_rows)}"
        )
    check_machine(section, name="sft")
    settings = _common(section, output_dir, {"rows_per_step", "save_steps", "report_to", "project"})
    if asks_for_fsdp():
        raise RecipeError(
            "supervised fine-tuning keeps whole weights on every process, got FSDP; use the file that opengrit recipe "
            "copy accelerate/ddp writes"
        )
    args = SFTConfig(
        **settings,
        max_length=None,  # nothing is cut off
        remove_unused_columns=False,
        logging_steps=1,
    )
    check_sharding(args)
    return on_one_device(args)


def count_processes() -> int:
    """How many processes train together; the first call joins them. Raises RecipeError where this machine has too few GPUs."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise RecipeError(
            f"each process needs its own GPU, {here} were started on a machine with {torch.cuda.device_count()}; lower "
            "--num-processes"
        )
    if asks_for_fsdp() and not torch.cuda.is_available():
        raise RecipeError(
            "accelerate shards weights on GPUs only, got FSDP on a machine without a GPU; use opengrit train "
            "--num-processes"
        )
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE).num_processes


def check_machine(section: Train | SftTrain, *, name: str) -> None:
    """Raise RecipeError for numbers, an optimizer or a tracker that this machine does not have; `name` is the section's."""
    if section.bf16 and not torch.cuda.is_available():
        raise RecipeError(f"{name}.bf16 needs a GPU, this machine has none; set {name}.bf16: false")
    if section.optim.endswith("8bit") and importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"{name}.optim {section.optim} needs bitsandbytes, which is not installed; install opengrit[qlora] or set "
            f"{name}.optim: adamw_torch"
        )
    check_installed(section.report_to, section=name)


def on_one_device(args: TrainingArguments) -> Any:
    """The same arguments for one GPU in this process, however many it can see: transformers would copy the model to all."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def vllm_settings(section: Train) -> dict[str, Any]:
    """What the section says of vLLM, as GRPOConfig takes it; nothing where the model samples its rollouts itself."""
    if section.vllm_mode is None:
        return {}
    named = {n: getattr(section, n) for n in type(section).model_fields if n.startswith("vllm_")}
    # The text up to the stop string is what is read and learned from, the stop string included.
    stop = {"stop": list(STOP), "include_stop_str_in_output": True}
    return {"use_vllm": True, **named, "generation_kwargs": stop}


def _common(section: Train | SftTrain, output_dir: str | Path, ours: set[str]) -> dict[str, Any]:
    """The section but for the fields that are `ours`, and what both trainers set: saving, devices and no output."""
    use_cpu = not torch.cuda.is_available()
    saves: dict[str, Any] = {"save_strategy": "no"}
    if section.save_steps is not None:
        saves = {"save_strategy": "steps", "save_steps": section.save_steps}
    return {
        **section.model_dump(exclude=ours),
        **saves,
        "output_dir": str(output_dir),
        "gradient_accumulation_steps": section.passes_per_step(count_processes()),
        "eval_strategy": "no",
        "use_cpu": use_cpu,
        "report_to": "none",
        "disable_tqdm": True,
        "num_train_epochs": math.inf,
        "logging_first_step": True,
        "dataloader_pin_memory": not use_cpu,
        "ddp_find_unused_parameters": False,  # every weight that learns is used in every pass
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if section.gradient_checkpointing else None,
    }


def check_rows(num_rows: int, section: Train) -> None:
    """Raise RecipeError where the data has fewer rows than one step asks questions, with the sizes that it allows."""
    if num_rows < section.questions_per_step:
        remedy = section.remedy_for(num_rows, num_processes=int(os.environ.get("WORLD_SIZE", "1")))
        raise RecipeError(
            f"a step asks distinct questions, train.questions_per_step is {section.questions_per_step} and data.train has "
            f"{num_rows} rows; {remedy}"
        )


def check_settings(args: GRPOConfig, *, num_rows: int) -> None:
    """Raise RecipeError where TRL's arguments, or the number of rows, are not what the trainer can train with."""
    questions = (args.generation_batch_size or 0) // (args.num_generations or 1)
    if num_rows < questions:
        raise RecipeError(
            f"a step asks distinct questions, {questions} are requested and the data has {num_rows} rows; add rows"
        )
    if args.steps_per_generation != args.gradient_accumulation_steps:
        raise RecipeError(
            f"a generation batch is one optimizer step, got steps_per_generation {args.steps_per_generation} and "
            f"gradient_accumulation_steps {args.gradient_accumulation_steps}; make them equal"
        )
    if args.save_strategy == "steps" and args.save_steps % args.num_iterations:
        raise RecipeError(
            f"a checkpoint must coincide with the end of a generation, got save_steps {args.save_steps} and "
            f"num_iterations {args.num_iterations}; make save_steps a multiple"
        )
    check_sharding(args)


def check_processor(processor: Any) -> None:
    """Raise ModelError for a processor that pads on the right: log-probabilities would be those of other tokens."""
    side = processor.tokenizer.padding_side
    if side != "left":
        raise ModelError(
            f"a processor pads on the left (completions follow their prompts), this one pads on the {side}; "
            'set processor.tokenizer.padding_side = "left", or load it with opengrit.models.load'
        )
