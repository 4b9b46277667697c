"""The doctor on resources: memory on each device and what would make it fit, disk for checkpoints, and processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from opengrit.core.errors import OpenGritError, RecipeError
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding, split_message
from opengrit.doctor.fit import plan_of
from opengrit.models.memory_estimate import (
    FLOAT,
    GB,
    MemoryEstimate,
    Plan,
    Sharding,
    estimate,
    trainable_parameters,
)
from opengrit.models.shapes import ModelFacts
from opengrit.recipes.model_section import Lora
from opengrit.recipes.train_section import Train
from opengrit.recipes.training_recipe import Recipe
from opengrit.runs.folder import RunDir

_NEARLY_FULL = 0.9
_ON_CHECKPOINTS = 0.8  # of what is free
_PARTS_SHOWN = 3
_CHANGES_SHOWN = 3
_MODEST_PIXELS = 200_704  # 256 tokens of Qwen2.5-VL


def examine_memory(context: Context) -> Iterator[Finding]:
    """By arithmetic (`opengrit.models.memory_estimate`), with the lengths of this data where the model is here to count them."""
    facts, machine = context.facts, context.environment.machine
    if facts is None:
        name = context.recipe.model.name
        yield Area.MEMORY.skipped(
            "memory", f"neither our table nor a config on this machine gives the size of {name}"
        )
        return
    if context.unsized:
        yield Area.MEMORY.skipped(
            "memory",
            f"picture sizes of {context.unsized} rows are not known: the pictures are missing, and the rows do not give "
            "the sizes",
        )
        return
    found = _estimate(context, facts, context.recipe)
    share = found.total / (machine.device_gb * GB)
    parts = sorted(_parts(found).items(), key=lambda part: -part[1])[:_PARTS_SHOWN]
    listed = ", ".join(f"{name} {_gb(size)}" for name, size in parts if size >= GB / 20)
    devices = "a device" if context.environment.has_gpu else "a process"
    text = f"about {_gb(found.total)} of {machine.device_gb:.0f} GB {devices} ({listed}), estimated"
    if share <= _NEARLY_FULL:
        yield Area.MEMORY.ok("memory", text)
        return
    changes = changes_that_fit(
        context.recipe,
        lambda recipe: _estimate(context, facts, recipe).total <= _NEARLY_FULL * machine.device_gb * GB,
        has_gpu=context.environment.has_gpu,
        cuts_tiles=facts.vision.is_internvl,
    )
    if _fits_sharded(context, facts):
        changes.insert(
            0, f"shard it over the {machine.devices} devices with DeepSpeed ZeRO-2 (--sharding zero2)"
        )
    remedy = "; or ".join(changes[:_CHANGES_SHOWN]) or "choose a smaller model, or devices with more memory"
    yield Area.MEMORY.graded(
        "memory",
        text,
        remedy,
        fails=share > 1,
        warns=True,
        why=f"it does not fit {machine.name}",
        why_warn="it may just fit",
    )


def _fits_sharded(context: Context, facts: ModelFacts) -> bool:
    """Whether ZeRO-2 over the devices at hand would make the recipe fit, where they do not share yet."""
    machine = context.environment.machine
    if machine.devices == 1 or machine.sharding is not Sharding.NONE or not context.environment.has_gpu:
        return False
    plan = replace(_plan(context, facts, context.recipe), sharding=Sharding.ZERO2)
    return estimate(facts, plan).total <= _NEARLY_FULL * machine.device_gb * GB


def _gb(size: float) -> str:
    return f"{size / GB:.0f} GB" if size >= 10 * GB else f"{size / GB:.1f} GB"


def _parts(found: MemoryEstimate) -> dict[str, int]:
    """What is there when most is: the steady parts, and the larger of learning and generating."""
    steady = {
        "weights": found.weights + found.working_copies,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "reference": found.reference,
    }
    if found.training >= found.generating:
        return steady | {"activations": found.activations + found.vision, "the head's logits": found.logits}
    return steady | {"keys and values": found.cache, "sampling": found.sampling}


def _estimate(context: Context, facts: ModelFacts, recipe: Recipe) -> MemoryEstimate:
    return estimate(facts, _plan(context, facts, recipe))


def _plan(context: Context, facts: ModelFacts, recipe: Recipe) -> Plan:
    """The recipe's plan, with pictures and prompts no longer than those of the data."""
    plan = plan_of(recipe, facts, context.environment.machine)
    if context.prompts:
        longest = max(len(p.picture.placeholder_ids) for p in context.prompts)
        words = max(len(p.ids) - len(p.picture.placeholder_ids) for p in context.prompts)
        return replace(plan, picture_tokens=min(longest, plan.picture_tokens), prompt_tokens=words)
    if (
        context.examples and not facts.vision.is_internvl
    ):  # none is enlarged beyond what its processor rounds to
        side = facts.vision.patch * facts.vision.merge
        sizes = [example.picture_size for example in context.examples]
        most = max(math.ceil(s.width / side) * math.ceil(s.height / side) for s in sizes)
        least = math.ceil((recipe.model.min_pixels or 0) / side**2)
        return replace(plan, picture_tokens=min(plan.picture_tokens, max(most, least)))
    return plan


def changes_that_fit(
    recipe: Recipe, fits: Callable[[Recipe], bool], *, has_gpu: bool, cuts_tiles: bool = False
) -> list[str]:
    """What alone makes the recipe fit, mildest first; where nothing alone does, what does together."""
    changes = list(_changes(recipe, has_gpu=has_gpu, cuts_tiles=cuts_tiles))
    alone = [text for text, change in changes if fits(change(recipe))]
    if alone:
        return alone
    together = recipe
    texts: list[str] = []
    for text, change in changes:
        together, texts = change(together), [*texts, text]
        if fits(together):
            return [" and ".join(texts)]
    return []


def _changes(
    recipe: Recipe, *, has_gpu: bool, cuts_tiles: bool
) -> Iterator[tuple[str, Callable[[Recipe], Recipe]]]:
    """What to change, and the change, the mildest first. Only what is not so already."""
    train = recipe.train
    if not train.gradient_checkpointing:
        yield "set train.gradient_checkpointing: true", _with_train(gradient_checkpointing=True)
    smaller = [n for n in range(1, train.per_device_train_batch_size) if train.completions_per_step % n == 0]
    for n in sorted({smaller[-1], 1} if smaller else (), reverse=True):
        text = f"set train.per_device_train_batch_size: {n}"
        yield text, _with_train(per_device_train_batch_size=n)
    if train.beta > 0 and recipe.lora is None:
        yield "set train.beta: 0.0 (no reference model)", _with_train(beta=0.0)
    if has_gpu and not train.optim.endswith("8bit"):
        yield "set train.optim: adamw_8bit", _with_train(optim="adamw_8bit")
    if cuts_tiles and recipe.model.max_tiles != 1:
        yield "set model.max_tiles: 1", _with_model(max_tiles=1)
    elif not cuts_tiles and recipe.model.max_pixels is None:
        yield f"set model.max_pixels: {_MODEST_PIXELS}", _with_model(max_pixels=_MODEST_PIXELS)
    if not recipe.freeze_vision:
        yield "set freeze_vision: true", lambda r: r.model_copy(update={"freeze_vision": True})
    if recipe.lora is None:
        yield "add lora: {}", lambda r: r.model_copy(update={"lora": Lora()})
    if has_gpu and recipe.model.quantization is None and recipe.lora is not None:
        yield "set model.quantization: nf4", _with_model(quantization="nf4", dtype=None)


def _with_train(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: recipe.model_copy(update={"train": recipe.train.model_copy(update=values)})


def _with_model(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: recipe.model_copy(update={"model": recipe.model.model_copy(update=values)})


def examine_disk(context: Context) -> Iterator[Finding]:
    """Checkpoints and the final model, against what is free where the run would be written."""
    place = context.out or Path()
    if context.out is not None:
        try:
            RunDir.check(context.out, recipe=context.recipe.resolved_yaml())
        except OpenGritError as error:
            yield Area.DISK.error("run folder", error)
    if context.facts is None:
        yield Area.DISK.skipped("disk", "the model's size is not known")
        return
    train = context.recipe.train
    saved = most_checkpoints(train)
    checkpoint, final = checkpoint_bytes(context.facts, _plan(context, context.facts, context.recipe))
    needed, free = saved * checkpoint + final, context.environment.free_bytes(place)
    where = "the run's folder" if context.out is not None else "this folder (name the run's with --out)"
    found = (
        f"{saved} checkpoint{'s' if saved != 1 else ''} of {_size(checkpoint)} and the trained model take {_size(needed)}; "
        f"{_size(free)} are free in {where}"
    )
    remedy = "free some space, name another --out, raise train.save_steps, or set train.keep_checkpoints"
    fails, warns = needed > free, needed > _ON_CHECKPOINTS * free
    yield Area.DISK.graded("disk", found, remedy, fails=fails, warns=warns)


def most_checkpoints(train: Train) -> int:
    """How many checkpoints lie in a run's folder at once, at most. The last step is saved as well."""
    if train.save_steps is None:
        return 0
    saved = math.ceil(train.max_steps / train.save_steps)
    if train.keep_checkpoints is None:
        return saved
    # One more than is kept: the new one is whole before an old one goes.
    return min(saved, train.keep_checkpoints + (train.keep_best is not None) + 1)


def checkpoint_bytes(facts: ModelFacts, plan: Plan) -> tuple[int, int]:
    """Bytes of one checkpoint and of the trained model: what learns (or all weights) and the optimizer's means of it."""
    learning = trainable_parameters(facts, plan)
    weights = learning * FLOAT if plan.lora_rank else round(facts.parameters() * plan.weight_bytes)
    return weights + learning * plan.optimizer_bytes, weights


def _size(size: float) -> str:
    return _gb(size) if size >= GB / 10 else f"{size / 10**6:.0f} MB"


def examine_processes(context: Context) -> Iterator[Finding]:
    """Whether a step's work divides over the processes."""
    train, count = context.recipe.train, context.environment.machine.devices
    try:
        passes = train.passes_per_step(count)
    except RecipeError as error:
        yield Area.PROCESSES.fail(
            "processes",
            f"a step's {train.completions_per_step} completions do not divide evenly over {count} processes of "
            f"per_device_train_batch_size {train.per_device_train_batch_size}",
            split_message(str(error))[1],
        )
        return
    yield Area.PROCESSES.ok(
        "processes",
        f"{count} process{'es' if count > 1 else ''}: each step {train.completions_per_step // count} completions a process, "
        f"in {passes} pass{'es' if passes > 1 else ''} of {train.per_device_train_batch_size}",
    )
