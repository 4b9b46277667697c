"""What a packaged recipe says at its head: hardware, memory, disk and how long it takes, by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from opengrit.doctor.fit import Machine, facts_for, plan_of
from opengrit.doctor.resources import checkpoint_bytes, most_checkpoints
from opengrit.models.memory_estimate import GB, HALF, Plan, Sharding, estimate
from opengrit.models.shapes import ModelFacts
from opengrit.recipes.training_recipe import Recipe

BEGIN = "# -- memory (written by scripts/recipe_memory.py) --"
END = "# -- end of memory --"
_SHARED = {
    Sharding.ZERO1: "ZeRO-1",
    Sharding.ZERO2: "ZeRO-2",
    Sharding.ZERO3: "ZeRO-3",
    Sharding.FSDP: "FSDP",
}

_STEP_SECONDS = (
    0.03  # of one token of all completions: what transformers takes to start a layer's kernels, on any GPU
)
_REACHED = 0.3  # of a device's arithmetic in a forward and backward pass
_WRITTEN = 0.5  # of the longest completion: the average; the longest of a step reaches the limit


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that is usual at a size: bytes a second from its memory, and operations a second in 16 bits."""

    name: str
    bandwidth: float
    operations: float


# NVIDIA's data sheets, without sparsity.
DEVICES = {
    16: Device("RTX A4000", 0.448e12, 77e12),
    24: Device("A10", 0.6e12, 125e12),
    80: Device("A100", 2.0e12, 312e12),
}


def memory_comment(recipe: Recipe, machine: Machine) -> str:
    """The lines at the head of a recipe file that say what it takes of that machine, markers included."""
    facts = facts_for(recipe.model.name)
    plan = plan_of(recipe, facts, machine)
    found = estimate(facts, plan)
    shared = f", {_SHARED[machine.sharding]}" if machine.sharding in _SHARED else ""
    beside = ", 1 for vLLM" if recipe.train.vllm_mode == "server" else ""
    lines = [
        f"hardware: {machine.devices} x {machine.device_gb:.0f} GB{shared}{beside}",
        f"memory: {found.total / GB:.0f} GB (estimated)",
        f"disk: {disk_bytes(recipe, facts, plan) / GB:.0f} GB (estimated)",
        f"time: {_rounded(training_seconds(recipe, facts, plan, machine) / 3600)} h (estimated)",
        f"On {machine.name}: {found.total / GB:.0f} of {machine.device_gb:.0f} GB a device, estimated by",
        f"opengrit.models.memory_estimate from the model's shape ({facts.parameters():,} parameters) and this recipe; not measured.",
        f"Longest case: {plan.rows} completions of {plan.completion_tokens} tokens a pass, "
        f"{plan.decoded_rows} written together,",
        f"prompts of {plan.prompt_tokens} tokens and {plan.picture_tokens} of the picture.",
        *found.lines(),
    ]
    return "\n".join([BEGIN, *(f"# {line}" for line in lines), END])


def disk_bytes(recipe: Recipe, facts: ModelFacts, plan: Plan) -> float:
    """The model as the hub has it (16 bits), the checkpoints that lie there at once, and the trained model."""
    checkpoint, final = checkpoint_bytes(facts, plan)
    return facts.parameters() * HALF + most_checkpoints(recipe.train) * checkpoint + final


def training_seconds(recipe: Recipe, facts: ModelFacts, plan: Plan, machine: Machine) -> float:
    """Of the training alone, on GPUs as they are usual at that size, without evaluations and the judge.

    A step writes its completions together, a token of each at a time: the model's weights are read once for all of them,
    and the longest decides. Then it reads them forward and back (6 operations a weight and token; 2 more where activations
    are computed again, and 2 for the reference model).
    """
    device, train = DEVICES[round(machine.device_gb)], recipe.train
    mine = train.completions_per_step / machine.devices
    waves = -(-mine // plan.decoded_rows)
    token = max(_STEP_SECONDS, facts.parameters() * HALF / device.bandwidth)
    writing = waves * train.max_completion_length * token
    tokens = mine * (_WRITTEN * train.max_completion_length) + mine / train.num_generations * (
        plan.prompt_tokens + plan.picture_tokens
    )
    operations = 6 + 2 * train.gradient_checkpointing + 2 * (train.beta > 0)
    learning = tokens * facts.parameters() * operations / (_REACHED * device.operations)
    return train.max_steps * (writing + train.num_iterations * learning)


def _rounded(hours: float) -> str:
    """Hours to one digit: the estimate is not better than that."""
    return f"{float(f'{hours:.1g}'):g}"
