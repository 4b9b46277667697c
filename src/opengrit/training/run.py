"""From a recipe to a trained model in a run's folder: `train`."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from torch.nn import Linear
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig

from opengrit.core.errors import RecipeError, Stopped
from opengrit.core.types import Example
from opengrit.data import load_examples, require_readable
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.evaluation.run import tell_cost
from opengrit.judges.breaker import Breaker
from opengrit.judges.settings import open_judge
from opengrit.models.families import Family, Loaded
from opengrit.models.loading import check_quantization, load_for_training
from opengrit.models.resolve import names_adapter, save_origin
from opengrit.recipes.training_recipe import Recipe, Source, Train
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import FINAL, RunDir
from opengrit.sampling import SamplingSettings
from opengrit.training.checkpoint import save_whole
from opengrit.training.progress_table import Watch
from opengrit.training.resume import Begun, Resume, begun, finished, lead
from opengrit.training.sharding import asks_for_fsdp, whole_weights
from opengrit.training.stopping import StopAtStepEnd
from opengrit.training.trainer import (
    STOP,
    GritTrainer,
    Judging,
    Keeping,
    Probe,
    check_rows,
    check_settings,
    freeze_vision,
)

if TYPE_CHECKING:
    from opengrit.recipes.sft_recipe import SftTrain
    from opengrit.training.sft_trainer import GritSFTTrainer

_log = logging.getLogger(__name__)
_PATIENCE = timedelta(minutes=30)  # for one another: the first process measures while the others wait
PROBE_QUESTIONS = (
    32  # questions of each evaluation set that are asked while training; the whole set is for `eval`
)


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

    With `resume` the run in `out` goes on from its last checkpoint with the same data order (`resume_from` names another
    one, `resume_anyway` takes a checkpoint of another recipe, number of processes or package version); a finished run is
    left as it is. Everything that can be refused is refused before a model is loaded or a file is written:
    RecipeError for settings and rewards that cannot apply, DataError for the data, ModelError for the model's name,
    RunError for the folder and the checkpoint. A signal ends the steps with a checkpoint, and Stopped is raised.
    """
    wanted = Resume.asked(resume=resume, anyway=resume_anyway, start=resume_from)
    examples = _examples(recipe.data.train)
    rubric = recipe.rubric()
    rubric.check(examples)
    check_rows(len(examples), recipe.train.questions_per_step)
    probes = _probes(recipe)
    require_readable(examples)
    for probe in probes:
        require_readable(probe.examples)
    check_model(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        args = grpo_config(recipe, scratch)
        check_settings(args, num_rows=len(examples))
        text = recipe.resolved_yaml()
        if is_finished(out, recipe=text, resume=wanted):
            return RunDir.open(out)
        with begun(out, recipe=text, resume=wanted) as begin:
            loaded = load_for(recipe)
            check_lora(loaded.model, recipe)
            run = run_folder(out, recipe=text, seed=recipe.train.seed, resume=wanted, begin=begin)
            _train(
                recipe,
                run,
                examples,
                loaded=loaded,
                args=args,
                rubric=rubric,
                probes=probes,
                start=begin.start,
                resume=wanted.wanted,
                quiet=quiet,
            )
    return run


def is_finished(out: str | Path, *, recipe: str, resume: Resume) -> bool:
    """Whether there is a run to resume that has its final model, which is said in the log then.

    Raises RunError where the folder cannot be used, and where a finished run is to go on from one of its checkpoints.
    """

    def look() -> bool:
        RunDir.check(out, recipe=recipe, resume=resume.wanted, anyway=resume.anyway)
        if not resume.wanted or not (Path(out) / FINAL).is_dir():
            return False
        if resume.start is not None:
            raise finished(RunDir.open(out), start=resume.start)
        _log.info("%s is finished (it has its %s/); nothing was trained", out, FINAL)
        return True

    return lead(look)


def run_folder(out: str | Path, *, recipe: str, seed: int, resume: Resume, begin: Begun) -> RunDir:
    """The run's folder, made by the first process."""
    lead(
        lambda: RunDir.create(
            out,
            recipe=recipe,
            resume=resume.wanted,
            anyway=resume.anyway,
            differences=begin.differences,
            seeds={"train": seed},
        )
    )
    return RunDir.open(out)


def leave_processes() -> bool:
    """End the group of processes that trained together; whether this is its first process.

    For the end of a command: threads of the group that outlive the interpreter can abort it.
    """
    state = PartialState()
    state.wait_for_everyone()
    leads = state.is_main_process
    state.destroy_process_group()
    return leads


def ending(training: Callable[[], RunDir]) -> RunDir:
    """What a command's training returns; one that a signal stopped leaves its group of processes before it says so."""
    try:
        return training()
    except Stopped as stopped:
        if leave_processes():
            raise Stopped(
                f"{stopped}; the same command with --resume goes on", exit_code=stopped.exit_code
            ) from stopped
        raise Stopped("", exit_code=stopped.exit_code) from stopped  # the first process has said it


def _train(
    recipe: Recipe,
    run: RunDir,
    examples: list[Example],
    *,
    loaded: Loaded,
    args: GRPOConfig,
    rubric: Rubric,
    probes: list[Probe],
    start: Path | None,
    resume: bool,
    quiet: bool,
) -> None:
    if recipe.freeze_vision:
        freeze_vision(loaded)
    watch = Watch(num_steps=recipe.train.max_steps, quiet=quiet or not PartialState().is_main_process)
    with open_judge(recipe.judge, breaker=Breaker()) as judge:
        trainer = GritTrainer(
            loaded,
            examples,
            args=args,
            protocol=EvaluationProtocol(recipe.strategy, loaded.frame, judge, rubric),
            run=run,
            peft_config=lora_config(recipe, loaded.family),
            probes=probes,
            watch=watch,
            judging=Judging(recipe.judge.deadline_seconds, recipe.judge.min_judged_share),
            keeping=Keeping(recipe.train.keep_checkpoints, recipe.train.keep_best),
        )
        try:
            assert trainer.watch is not None
            with trainer.watch:
                if resume and start is None:
                    _log.warning("no checkpoint in %s: training starts at its first step", run.path)
                take_steps(
                    trainer,
                    run,
                    max_steps=recipe.train.max_steps,
                    start=start,
                    cycle=recipe.train.num_iterations,
                )
        finally:
            trainer.judge_pool.close()
            tell_cost(judge)
    weights = whole_weights(trainer.model)
    if trainer.accelerator.is_main_process:
        save_final(trainer, run.path / FINAL, weights=weights)


def take_steps(trainer: Trainer, run: RunDir, *, max_steps: int, start: Path | None, cycle: int = 1) -> None:
    """Take the steps that are left of the run; `cycle` of them are made with one generation.

    Raises Stopped where SIGTERM or SIGINT ended them, with a checkpoint. A signal after the last step that no checkpoint
    holds does not: what is left is to write the final model, and that costs less than the steps.
    """
    if start == run.checkpoint_path(max_steps):  # all steps are done, only the last folder is missing
        trainer._load_from_checkpoint(str(start))
        return
    with StopAtStepEnd(trainer, cycle=cycle) as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        stop.raise_if_stopped(kept=lead(run.checkpoint_path(trainer.state.global_step).is_dir))


def save_final(
    trainer: GritTrainer | GritSFTTrainer,
    target: Path,
    *,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """The model (or its adapter), the processor and a frame of its own in one folder that `opengrit.models.load` reads.

    `weights` are all of them, where no process holds all.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)

    def write(staged: Path) -> None:
        model.save_pretrained(staged, state_dict=weights)
        trainer.loaded.processor.save_pretrained(staged)
        save_origin(staged, trainer.loaded)

    save_whole(target, write)


def load_for(recipe: Recipe) -> Loaded:
    """The recipe's model, ready to train: weights in 32 bits (bf16 computes in 16 and keeps them) unless it says else."""
    return load_for_training(recipe.model)


def lora_config(recipe: Recipe, family: Family) -> LoraConfig | None:
    """The recipe's adapters, or None for full fine-tuning; the family says where its vision tower is."""
    if recipe.lora is None:
        return None
    targets = recipe.lora.target_modules
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,  # type: ignore[arg-type]  # peft takes a float as well
        lora_dropout=recipe.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=family.lora_exclude if recipe.freeze_vision else None,
        task_type="CAUSAL_LM",
    )


def check_model(recipe: Recipe) -> None:
    """Raise RecipeError where adapters would be trained on an adapter, or a model be quantized that cannot be here."""
    if names_adapter(recipe.model.name) and recipe.lora is not None:
        raise RecipeError(
            f"adapters are trained on a whole model, {recipe.model.name} is an adapter itself and the recipe has lora:; "
            "set lora: null to go on training it, or name its base under model:"
        )
    if recipe.lora is not None and asks_for_fsdp():
        raise RecipeError(
            "adapters are trained with whole weights on every process, FSDP is asked for and the recipe has lora:; use "
            "recipes/accelerate/ddp.yaml"
        )
    check_quantization(recipe.model.name, recipe.model.quantization)


def check_lora(model: Any, recipe: Recipe) -> None:
    """Raise RecipeError where the recipe's adapters name a module that the model has not."""
    if recipe.lora is None or isinstance(recipe.lora.target_modules, str):
        return
    names = [name for name, _ in model.named_modules()]
    for target in recipe.lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            known = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, Linear)})
            raise RecipeError(
                f"lora.target_modules names modules of the model, {recipe.model.name} has no {target!r}; "
                f"its linear layers are {', '.join(known)}"
            )


def grpo_config(recipe: Recipe, output_dir: str | Path) -> GRPOConfig:
    """TRL's configuration of the recipe on the processes and devices at hand. Raises RecipeError where they do not fit."""
    wanted = recipe.train
    check_machine(wanted, section="train")
    if wanted.vllm_mode is not None and importlib.util.find_spec("vllm") is None:
        raise RecipeError(
            f"train.vllm_mode {wanted.vllm_mode} needs vllm, it is not installed; install opengrit[vllm] or set "
            "train.vllm_mode: null"
        )
    passes = wanted.passes_per_step(count_processes())
    ours = {"questions_per_step", "eval_steps", "save_steps", "keep_checkpoints", "keep_best"}
    settings: dict[str, Any] = wanted.model_dump(
        exclude=ours | {name for name in type(wanted).model_fields if name.startswith("vllm_")}
    )
    args = GRPOConfig(
        output_dir=str(output_dir),
        **settings,
        **vllm_settings(wanted),
        **trainer_settings(wanted),
        gradient_accumulation_steps=passes,
    )
    return on_one_device(args)


def count_processes() -> int:
    """How many processes train together; the first call joins them. Raises RecipeError where this machine has too few GPUs."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise RecipeError(
            f"each process trains on a GPU of its own, {here} were started on a machine with {torch.cuda.device_count()}; "
            "lower --num-processes"
        )
    if asks_for_fsdp() and not torch.cuda.is_available():
        raise RecipeError(
            "accelerate shares weights out on GPUs only, FSDP is asked for on a machine without; use opengrit train "
            "--num-processes"
        )
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE).num_processes


def check_machine(wanted: Train | SftTrain, *, section: str) -> None:
    """Raise RecipeError for numbers or an optimizer that this machine has not; `section` is where the recipe asks for them."""
    if wanted.bf16 and not torch.cuda.is_available():
        raise RecipeError(
            f"{section}.bf16 needs a GPU, there is none on this machine; set {section}.bf16: false"
        )
    if wanted.optim.endswith("8bit") and importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f"{section}.optim {wanted.optim} needs bitsandbytes, it is not installed; "
            f"install opengrit[qlora] or set {section}.optim: adamw_torch"
        )


def on_one_device(args: TrainingArguments) -> Any:
    """The same arguments for one GPU in this process, however many it can see: transformers would spread a copy over all."""
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def trainer_settings(wanted: Train | SftTrain) -> dict[str, Any]:
    """What every training of ours tells transformers' Trainer: when to save, no output of its own, and the devices."""
    use_cpu = not torch.cuda.is_available()
    saves: dict[str, Any] = {"save_strategy": "no"}
    if wanted.save_steps is not None:
        saves = {"save_strategy": "steps", "save_steps": wanted.save_steps}
    return saves | {
        "eval_strategy": "no",
        "use_cpu": use_cpu,
        "report_to": "none",
        "disable_tqdm": True,
        "num_train_epochs": math.inf,
        "logging_first_step": True,
        "dataloader_pin_memory": not use_cpu,
        "ddp_find_unused_parameters": False,  # every weight that learns is used in every pass
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if wanted.gradient_checkpointing else None,
    }


def vllm_settings(wanted: Train) -> dict[str, Any]:
    """What the recipe says of vLLM, as GRPOConfig takes it; nothing where the model draws its rollouts itself."""
    if wanted.vllm_mode is None:
        return {}
    named = {n: getattr(wanted, n) for n in type(wanted).model_fields if n.startswith("vllm_")}
    # The text up to the stop string is what is read and learned from, the stop string included.
    stop = {"stop": list(STOP), "include_stop_str_in_output": True}
    return {"use_vllm": True, **named, "generation_kwargs": stop}


def _examples(sources: tuple[Source, ...]) -> list[Example]:
    return [example for source in sources for example in load_examples(source.spec, source.images)]


def _probes(recipe: Recipe) -> list[Probe]:
    if recipe.train.eval_steps is None:
        return []
    settings = SamplingSettings(
        temperature=recipe.eval.temperature, max_new_tokens=recipe.eval.max_completion_length, stop=STOP
    )
    return [
        Probe(
            source.spec,
            tuple(_spread(load_examples(source.spec, source.images), PROBE_QUESTIONS)),
            settings,
            recipe.train.eval_steps,
            questions_per_batch=recipe.eval.batch_size,
            samples_per_question=recipe.eval.samples,
            strategy=recipe.eval.strategy,
        )
        for source in recipe.data.eval
    ]


def _spread(examples: list[Any], count: int) -> list[Any]:
    """At most `count` examples, evenly spaced over the list."""
    if len(examples) <= count:
        return examples
    return [examples[i * len(examples) // count] for i in range(count)]
