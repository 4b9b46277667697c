"""The measurements of `benchmarks/gpu.sh`, one part a process: prints Markdown, line by line, as it measures.

    python benchmarks/gpu_parts.py step --scratch FOLDER --seconds 120 [--rehearse] [--vocabulary FOLDER]

`gpu.py` leaves out the parts whose package is not installed. Figures of a rehearsal (a CPU, small shapes, few tokens) say
only that every line of these files runs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import generate
import step
from gpu_attention import attention, log_probabilities
from gpu_memory import memory
from gpu_setting import (
    FAMILIES,
    GPU,
    REHEARSAL,
    Canned,
    Setting,
    device_bytes,
    driver,
    here,
    keep_stdout_for_page,
    peak,
    questions_of,
    reset_peak,
    saved,
    say,
)
from opengrit.data import load_examples
from opengrit.doctor.fit import Machine, plan_of
from opengrit.models.families import Loaded
from opengrit.models.loading import load
from opengrit.models.memory_estimate import GB, estimate
from opengrit.models.shapes import KNOWN, ModelFacts
from opengrit.recipes.training_recipe import load_recipe
from opengrit.sampling import Asked
from shapes import SHAPES, build

# -- device -------------------------------------------------------------------------------------------------------


def device(setting: Setting) -> None:
    """What is measured on, and the two rates that figures are compared with."""
    names = (
        "torch",
        "triton",
        "transformers",
        "trl",
        "peft",
        "accelerate",
        "vllm",
        "bitsandbytes",
        "flash-attn",
    )
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    called = torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU ({platform.machine()})"
    say(
        "| | |",
        "|---|---|",
        f"| device | {called}, {device_bytes() / GB:.1f} GB |",
        f"| driver | {driver()} |",
    )
    say(
        f"| Python | {platform.python_version()}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads |"
    )
    say(f"| versions | {', '.join(f'{name} {version}' for name, version in found.items())} |")
    rate = generate.copy_rate(here(), size=setting.scale.copied)
    say(f"| copies within the device, read and written | {rate / 1e9:.0f} x 10^9 bytes a second |")
    say(f"| a large matrix product | {step.matmul_rate() / 1e12:.1f} x 10^12 FLOPs a second |")
    for recipe_name, family in FAMILIES.items():
        shape = getattr(GPU, family)
        facts = ModelFacts.from_config(build(shape, device="meta").model.config.to_dict())
        if facts.parameters() != KNOWN[recipe_name].parameters():
            raise SystemExit(
                f"the shape {shape} is to have the parameters of {recipe_name} ({KNOWN[recipe_name].parameters():,}), "
                f"it has {facts.parameters():,}; correct benchmarks/shapes.py"
            )
        say(f"| {shape} | {facts.parameters():,} parameters, as {recipe_name} |")


# -- step ---------------------------------------------------------------------------------------------------------


def step_options(setting: Setting, **more: Any) -> argparse.Namespace:
    given = {"model": None, "shape": setting.scale.qwen, "natural": False, "beta": 0.0, "sweep": False}
    given |= {"folder": None, "vocabulary": None, "alone": False}
    return argparse.Namespace(**given | setting.scale.step | {"rounds": setting.scale.rounds} | more)


def step_in_process(setting: Setting) -> None:
    """Turns of stock TRL and ours, as many pairs as there is time for; then the table of `step.py`."""
    options = step_options(setting)
    examples = load_examples("stickers/train20")[: options.questions]
    turns: dict[str, list[step.Turn]] = {name: [] for name in step.NAMES}
    memory = {}
    longest = 0.0
    for pair in range(setting.scale.rounds):
        if setting.left < 1.3 * longest:
            break
        began = time.monotonic()
        for name, make in zip(step.NAMES, (step.stock, step.ours), strict=True):
            reset_peak()
            turns[name].append(step.turn(options, make, examples))
            memory[name] = peak() / 2**20
            say(f"- pair {pair + 1}, {name}: {turns[name][-1].seconds:.3f} s a step")
        longest = max(longest, time.monotonic() - began)
    options.rounds = len(turns["opengrit"])
    say("", step.section(options, turns, memory))


def colocate(setting: Setting) -> None:
    """The same step with vLLM in the process, each trainer in a process of its own."""
    folder = saved(setting)
    sizes = ", ".join(f"{name} {value}" for name, value in setting.scale.step.items())
    say(f"Colocated vLLM, weights of the same shape, completions of natural length ({sizes}).", "")
    say("| | seconds a step | peak memory, GB |", "|---|---|---|")
    failed: list[str] = []
    for name in step.NAMES:
        command = [
            sys.executable,
            __file__,
            "colocated",
            *sys.argv[2:],
            "--only",
            name,
            "--model",
            str(folder),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(name)
            say(f"| {name} | failed, see the log | |")
            continue
        made = json.loads(done.stdout.splitlines()[-1])
        say(f"| {name} | {made['seconds']:.3f} | {made['peak'] / GB:.1f} |")
    if failed:
        raise SystemExit(f"no step with vLLM by {' and '.join(failed)}")


def colocated(setting: Setting, *, only: str, model: str) -> None:
    """One trainer's turn with vLLM; prints a JSON object."""
    if (
        not torch.cuda.is_available()
    ):  # compiling would take minutes, and weights that oneDNN has packed cannot be replaced
        import functools

        import trl.generation.vllm_generation as generation
        import vllm._custom_ops

        generation.LLM = functools.partial(generation.LLM, enforce_eager=True)
        vllm._custom_ops._supports_onednn = False
    more = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_length": 1024,
        "gradient_checkpointing": True,
    }
    options = step_options(setting, model=model, shape=None, natural=True, more=more)
    examples = load_examples("stickers/train20")[: options.questions]
    reset_peak()
    made = step.turn(options, {"stock trl": step.stock, "opengrit": step.ours}[only], examples)
    say(json.dumps({"seconds": made.seconds, "peak": peak()}))
    os._exit(0)  # vLLM's engine can hold a process that is done


# -- decode -------------------------------------------------------------------------------------------------------


def decode(setting: Setting) -> None:
    """Tokens a second and how near a step is to what reading its bytes takes."""
    loaded = build(setting.scale.qwen)
    rate = generate.copy_rate(here(), size=setting.scale.copied)
    short, long = setting.scale.lengths
    say(
        f"A step is the difference between completions of {long} and of {short} tokens, so that prompts and pictures are left "
        f"out; medians of three. The limit is the bytes that a step must read (weights, keys and values, once each) at "
        f"{rate / 1e9:.0f} x 10^9 bytes a second, the copies' rate; weights alone are the limit of one row.",
        "",
        "| questions x completions | | tokens a second | a step, ms | bytes a step, 10^9 | limit, ms | limit over step |",
        "|---|---|---|---|---|---|---|",
    )
    longest = 0.0
    for count, group in setting.scale.drawn:
        asked = questions_of(loaded, count)
        read = generate.bytes_a_step(loaded, asked, group=group, length=(short + long) / 2)
        for name, make in (("opengrit", generate.ours), ("model.generate", generate.stock)):
            if setting.left < 1.5 * longest:  # the next has more rows
                say("", f"{name}, {count} x {group} and what follows: no time left.")
                return
            began = time.monotonic()
            seconds = step_seconds(make, loaded, asked, group=group, lengths=(short, long))
            longest = max(longest, time.monotonic() - began)
            limit = read / rate
            say(
                f"| {count} x {group} | {name} | {count * group / seconds:.0f} | {seconds * 1e3:.2f} | {read / 1e9:.2f} | "
                f"{limit * 1e3:.2f} | {limit / seconds:.0%} |"
            )


def step_seconds(
    make: Callable[..., Any], loaded: Loaded, asked: list[Asked], *, group: int, lengths: tuple[int, int]
) -> float:
    """Seconds of one decoding step; NaN where the difference is within the clock's noise."""
    short, long = (make(loaded, asked, group=group, length=n, fixed=True) for n in lengths)
    short(0), long(0)
    taken = [
        generate.clock(lambda s=s: long(s)).seconds - generate.clock(lambda s=s: short(s)).seconds
        for s in (1, 2, 3)
    ]
    seconds = statistics.median(taken) / (lengths[1] - lengths[0])
    return seconds if seconds > 0 else float("nan")


# -- four bits ----------------------------------------------------------------------------------------------------


def four_bit(setting: Setting) -> None:
    """Loading in 4 bits: seconds, bytes, how far its log-probabilities are from the checkpoint's, decoding."""
    folder = str(saved(setting))
    say(
        "| weights | seconds to load | GB after loading | estimate | mean difference, nats a token | a step of 8 rows, ms |"
    )
    say("|---|---|---|---|---|---|")
    reference = None
    recipe = load_recipe("grit20-qwen2.5-vl-3b-16gb-qlora")
    for kind in (None, "nf4"):
        reset_peak()
        began = time.perf_counter()
        loaded = load(folder, quantization=kind)
        seconds = time.perf_counter() - began
        taken = (
            torch.cuda.memory_allocated()
            if torch.cuda.is_available()
            else loaded.model.get_memory_footprint()
        )
        facts = ModelFacts.from_config(loaded.model.config.to_dict())
        kept = "float32" if loaded.model.dtype == torch.float32 else "bfloat16"
        model = recipe.model.model_copy(update={"quantization": kind, "dtype": None if kind else kept})
        plan = plan_of(recipe.model_copy(update={"model": model, "lora": None}), facts, Machine("", 1, 0))
        known = estimate(facts, plan).weights
        canned = Canned(loaded, setting.scale.tokens)
        asked = questions_of(loaded, 1)
        ids_NT = torch.tensor([canned.one(asked[0]).completion.token_ids for _ in range(setting.scale.rows)])
        log_probs_NT, _ = log_probabilities(loaded, canned.prompts.prepare(asked[0]), ids_NT)
        reference = log_probs_NT if reference is None else reference
        difference = (log_probs_NT - reference).abs().mean()
        a_step = step_seconds(generate.ours, loaded, asked, group=8, lengths=setting.scale.lengths)
        name = f"{kind or loaded.model.dtype}".removeprefix("torch.")
        say(
            f"| {name} | {seconds:.1f} | {taken / GB:.2f} | {known / GB:.2f} | {difference:.4f} | {a_step * 1e3:.2f} |"
        )
        del loaded, canned


PARTS: dict[str, Callable[[Setting], None]] = {
    "device": device,
    "step": step_in_process,
    "colocate": colocate,
    "decode": decode,
    "memory": memory,
    "attention": attention,
    "four-bit": four_bit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "colocated"])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints and pictures")
    parser.add_argument("--seconds", type=float, required=True, help="after which it will be ended")
    parser.add_argument("--rehearse", action="store_true", help="small shapes and few tokens")
    parser.add_argument("--vocabulary", help="folder of a model whose tokenizer and sizes a rehearsal takes")
    parser.add_argument("--only", choices=step.NAMES, help="of colocated")
    parser.add_argument("--model", help="of colocated")
    args = parser.parse_args()
    if args.vocabulary:
        SHAPES[REHEARSAL.qwen]["base"] = args.vocabulary
    scale = REHEARSAL if args.rehearse else GPU
    setting = Setting(scale, args.scratch, time.monotonic() + args.seconds)
    torch.manual_seed(0)
    keep_stdout_for_page()
    if args.part == "colocated":
        colocated(setting, only=args.only, model=args.model)
    PARTS[args.part](setting)


if __name__ == "__main__":
    main()
