"""The part `memory` of `benchmarks/gpu.sh`: each recipe's peak against its estimate."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

import generate
import step
from gpu_setting import (
    FAMILIES,
    Canned,
    Setting,
    device_bytes,
    has,
    peak,
    reset_peak,
    saved,
    say,
)
from opengrit.core.errors import first_line
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.doctor.fit import Machine, plan_of
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.prompts import user_text
from opengrit.judges import RuleJudge
from opengrit.models.families import Loaded
from opengrit.models.loading import load
from opengrit.models.memory_estimate import GB, MemoryEstimate, estimate
from opengrit.models.shapes import KNOWN, ModelFacts
from opengrit.recipes.register import FOLDER
from opengrit.recipes.training_recipe import Recipe, load_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.settings import grpo_config
from opengrit.training.trainable_weights import freeze_vision_weights, lora_config
from opengrit.training.trainer import GritTrainer
from shapes import build

_SIDE = 448  # pixels of a picture's side; a processor scales it to what its shape sees


def memory(setting: Setting) -> None:
    """Each recipe's peak in training and in generating, against the estimate of the same sizes."""
    say(
        "One pass of a recipe's batch, twice, so that the second has the optimizer's state; completions are random tokens of the "
        f"recipe's full length. Then generating with all the rows that it writes together, {setting.scale.generated} tokens of each. "
        "Estimates are `opengrit.models.memory_estimate`'s, of the whole recipe on one device and of what was run. "
        "Measured: the allocator's and the context's bytes, in GB of 10^9.",
        "",
        "| recipe | the recipe's estimate | training: estimate | measured | generating: estimate | measured | seconds |",
        "|---|---|---|---|---|---|---|",
    )
    longest = 0.0
    failed: list[str] = []
    for name, recipe in sorted(recipes().items(), key=lambda item: in_whole(item[1])):
        if setting.left < 1.3 * longest:
            say(f"| {name} | no time left | | | | | |")
            continue
        began = time.monotonic()
        try:
            cells = recipe_peaks(setting, recipe)
        except torch.OutOfMemoryError as error:
            cells = f"out of memory: {str(error).splitlines()[0][:120]} | | | |"
        except Exception as error:  # whatever ends a recipe here, the others are measured
            traceback.print_exc()
            failed.append(name)
            said = first_line(error)[:120].replace("|", "/")
            cells = f"failed: {type(error).__name__}: {said} | | | |"
        taken = time.monotonic() - began
        longest = max(longest, taken)
        say(f"| {name} | {cells} | {taken:.0f} |")
    if failed:
        raise SystemExit(f"no peak of {' and '.join(failed)}")


def recipes() -> dict[str, Recipe]:
    """The packaged recipes that train by reinforcement in one process."""
    kinds = ("sft-", "table-", "vllm-")  # supervised, a table of runs, with a server of its own
    paths = [path for path in FOLDER.glob("*.yaml") if not path.name.startswith(kinds)]
    return {path.stem: load_recipe(path) for path in paths}


def in_whole(recipe: Recipe) -> int:
    """Bytes of the recipe on one device by the estimate; 0 for a packaged model."""
    facts = KNOWN.get(recipe.model.name)
    return 0 if facts is None else estimate(facts, plan_of(recipe, facts, Machine("this device", 1, 0))).total


def recipe_peaks(setting: Setting, recipe: Recipe) -> str:
    """The cells of a recipe's row."""
    if recipe.model.quantization and not has("bitsandbytes"):
        return "needs bitsandbytes | | | |"
    one = Machine("this device", 1, device_bytes() / GB)
    if in_whole(recipe) > device_bytes() and torch.cuda.is_available():
        return f"{in_whole(recipe) / GB:.2f}, does not fit | | | |"
    reset_peak()
    loaded = trainable(setting, recipe)
    facts = ModelFacts.from_config(loaded.model.config.to_dict())
    examples = wide_examples(setting, recipe, loaded)
    length = min(recipe.train.max_completion_length, setting.scale.longest or sys.maxsize)
    ran = as_run(recipe, length)
    prompt = TransformersSampler(loaded).prepare(question_of(examples[0]))
    shown = prompt.ids.count(loaded.processor.image_token_id)
    plan = replace(
        plan_of(ran, facts, one),
        decoded_rows=min(plan_of(recipe, facts, one).decoded_rows, setting.scale.written_rows or sys.maxsize),
        prompt_tokens=len(prompt.ids) - shown,
        picture_tokens=shown,
    )
    training, generating = measured_peaks(setting, ran, loaded, examples, rows=plan.decoded_rows)
    written = estimate(facts, replace(plan, completion_tokens=setting.scale.generated))
    sizes = {"prompt_tokens": plan.prompt_tokens, "picture_tokens": shown}
    of_recipe = estimate(facts, replace(plan_of(recipe, facts, one), **sizes)).total
    return " | ".join(
        f"{value / GB:.2f}"
        for value in (
            of_recipe,
            of_training(estimate(facts, plan)),
            training,
            of_generating(written),
            generating,
        )
    )


def of_training(found: MemoryEstimate) -> int:
    return found.steady + found.training + found.overhead


def of_generating(found: MemoryEstimate) -> int:
    return found.steady + found.generating + found.overhead


def as_run(recipe: Recipe, length: int) -> Recipe:
    """The recipe with one pass a step, two steps, and nothing that takes time beside them."""
    train = recipe.train
    changes: dict[str, Any] = {
        "max_steps": 2,
        "questions_per_step": -(-train.per_device_train_batch_size // train.num_generations),
        "max_completion_length": length,
        "save_steps": None,
        "eval_steps": None,
    }
    if not torch.cuda.is_available():
        changes |= {"bf16": False, "per_device_train_batch_size": min(8, train.per_device_train_batch_size)}
        changes["questions_per_step"] = -(-changes["per_device_train_batch_size"] // train.num_generations)
    return recipe.model_copy(update={"train": train.model_copy(update=changes)})


def trainable(setting: Setting, recipe: Recipe) -> Loaded:
    """The recipe's model as training has it, with random weights where the recipe names one of the hub."""
    model = recipe.model
    if model.quantization:
        loaded = load(str(saved(setting)), quantization=model.quantization)
    elif model.name in FAMILIES:
        dtype = torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
        loaded = build(getattr(setting.scale, FAMILIES[model.name]), dtype=dtype)
    else:
        loaded = load(model.name, dtype=torch.float32)
    if recipe.freeze_vision:
        freeze_vision_weights(loaded)
    silent = tuple(sorted({*loaded.forbidden_ids, *loaded.end_ids}))
    return replace(loaded, forbidden_ids=silent)


def wide_examples(setting: Setting, recipe: Recipe, loaded: Loaded) -> list[Example]:
    """Rows with prompts about as long as the estimate's, and pictures that fill every tile the recipe allows."""
    rows = load_examples("stickers/train20")
    if recipe.model.name not in FAMILIES:
        return rows
    tiles, side = 1, _SIDE
    if not loaded.family.has_grid:
        tiles, side = recipe.model.max_tiles or 1, loaded.processor.image_processor.size["height"]
        loaded.processor.image_processor.max_patches = tiles
    wide = []
    for row in rows:
        path = setting.scratch / f"{tiles}-{row.id.replace('/', '-')}.png"
        if not path.exists():
            Image.open(row.image).convert("RGB").resize((side * tiles, side)).save(path)
        wide.append(replace(row, image=str(path)))
    shown = TransformersSampler(loaded).prepare(question_of(wide[0])).ids
    pictures = shown.count(loaded.processor.image_token_id)
    return step.longer(wide, loaded, tokens=pictures + 150)


def question_of(example: Example) -> Asked:
    return Asked(example.id, example.image, user_text("grounded", example.question))


def measured_peaks(
    setting: Setting, recipe: Recipe, loaded: Loaded, examples: list[Example], *, rows: int
) -> tuple[int, int]:
    """Bytes at most while two steps are trained, and while `rows` completions are written with the same trainer."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = GritTrainer(
            loaded,
            examples,
            args=grpo_config(recipe.train, folder),
            protocol=EvaluationProtocol("grounded", loaded.frame, RuleJudge(), Rubric.named("paper")),
            peft_config=lora_config(recipe.lora, loaded.family, freeze_vision=recipe.freeze_vision),
            rollout_sampler=Canned(loaded, recipe.train.max_completion_length),
        )
        step.let_every_row_learn(trainer)
        trainer.train()
    training = peak()
    reset_peak()
    group = recipe.train.num_generations
    asked = [question_of(example) for example in examples[: max(1, rows // group)]]
    settings = SamplingSettings(max_new_tokens=setting.scale.generated, stop=(generate.NEVER,))
    with trainer.accelerator.autocast():
        trainer.sampler.sample(asked, samples_per_question=group, settings=settings)
    generating = peak()
    trainer.scorer.close()
    return training, generating
