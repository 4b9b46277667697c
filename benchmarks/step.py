"""What one training step costs: stock TRL against GritTrainer on the same model, rows, groups and completion length.

Run it with the package installed, from the root of the repository:

    python benchmarks/step.py --model tiny-qwen2.5-vl --length 60 --steps 3 --rounds 2

The two trainers take turns (A B A B), each on a fresh copy of the model; the first step of every turn warms up and is
left out. No completion ends early, so that both write the same number of tokens: end tokens are suppressed in
both, and our stop string is one that cannot be written. Prints a JSON object: seconds a step by turn, pictures encoded
and language-model tokens a step (measured in both, padding included), peak memory of the process in MiB.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from opengrit.data import load_examples
from opengrit.judge import RuleJudge
from opengrit.models import Loaded, load
from opengrit.prompts import user_text
from opengrit.rewards import Rubric
from opengrit.rollout import Exam
from opengrit.trainer import GritTrainer
from opengrit.types import Example
from pages import replace_section


class Clock(TrainerCallback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def count_work(loaded: Loaded) -> Counter[str]:
    """Counts pictures and language-model tokens that pass through the model from now on."""
    counted: Counter[str] = Counter()
    core = loaded.model.model
    if loaded.family.has_grid:
        core.visual.register_forward_pre_hook(
            lambda _, args, kwargs: counted.update(pictures=len(kwargs["grid_thw"])), with_kwargs=True
        )
    else:
        core.vision_tower.register_forward_pre_hook(
            lambda _, args, kwargs: counted.update(pictures=len(kwargs["pixel_values"])), with_kwargs=True
        )
    core.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: counted.update(tokens=kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    return counted


def config(options: argparse.Namespace, folder: str, **changes: Any) -> GRPOConfig:
    batch = options.questions * options.group
    settings: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "per_device_train_batch_size": batch,
        "num_generations": options.group,
        "max_completion_length": options.length,
        "max_steps": options.steps + 1,
        "learning_rate": 1e-6,
        "beta": options.beta,
        "loss_type": "grpo",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        **changes,
    }
    return GRPOConfig(**settings)


def stock(options: argparse.Namespace, loaded: Loaded, examples: list[Example], folder: str) -> GRPOTrainer:
    """TRL's trainer as its documentation sets it up, with a cheap reward."""
    rows = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": user_text("grounded", e.question)}] for e in examples],
            "image": [Image.open(e.image).convert("RGB") for e in examples],
        }
    )

    def spread(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 7) for ids in completion_ids]

    args = config(options, folder, generation_kwargs={"min_new_tokens": options.length})
    return GRPOTrainer(
        model=loaded.model,
        reward_funcs=[spread],
        args=args,
        train_dataset=rows,
        processing_class=loaded.processor,
    )


def ours(options: argparse.Namespace, loaded: Loaded, examples: list[Example], folder: str) -> GritTrainer:
    """Our trainer, with the paper's rewards; end tokens are not sampled, as in the other."""
    silent = tuple(sorted({*loaded.forbidden_ids, *loaded.end_ids}))
    return GritTrainer(
        replace(loaded, forbidden_ids=silent),
        examples,
        args=config(options, folder),
        exam=Exam("grounded", loaded.frame, RuleJudge(), Rubric.named("paper")),
        stop=("\0never written\0",),
    )


def turn(options: argparse.Namespace, make: Any, examples: list[Example]) -> dict[str, Any]:
    """Seconds of each step but the first, and the work of an average step."""
    loaded = load(options.model)
    clock, counted = Clock(), count_work(loaded)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(options, loaded, examples, folder)
        trainer.add_callback(clock)
        trainer.train()
    work = {name: round(value / (options.steps + 1), 1) for name, value in counted.items()}
    return {"seconds": [round(s, 3) for s in clock.seconds[1:]], **work}


def section(report: dict[str, Any]) -> str:
    """The report as a Markdown table: medians are not taken, every turn is shown."""
    options, turns = report["options"], report["turns"]
    lines = [
        f"### One training step, {options['model']}",
        "",
        f"{options['questions']} questions x {options['group']} completions of {options['length']} tokens, beta {options['beta']:g}, "
        f"turns A B A B, {options['steps']} steps a turn after one that warms up. {report['machine']}.",
        "",
        "| | seconds a step, turn by turn | pictures encoded a step | language-model tokens a step |",
        "|---|---|---|---|",
    ]
    for name, taken in turns.items():
        seconds = "; ".join(", ".join(f"{s:.2f}" for s in turn["seconds"]) for turn in taken)
        lines.append(f"| {name} | {seconds} | {taken[0]['pictures']:.0f} | {taken[0]['tokens']:.0f} |")
    lines += ["", f"Ratio of the means: {report['times faster']:.2f}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument("--data", default="stickers/train20")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument(
        "--results", type=Path, help="page to put the table into, for example docs/results.md"
    )
    options = parser.parse_args()
    examples = load_examples(options.data)
    turns: dict[str, list[dict[str, Any]]] = {"stock trl": [], "opengrit": []}
    for _ in range(options.rounds):
        turns["stock trl"].append(turn(options, stock, examples))
        turns["opengrit"].append(turn(options, ours, examples))
    mean = {
        name: sum(s for t in made for s in t["seconds"]) / sum(len(t["seconds"]) for t in made)
        for name, made in turns.items()
    }
    report = {
        "options": {key: value for key, value in vars(options).items() if key != "results"},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "seconds a step": {name: round(value, 3) for name, value in mean.items()},
        "times faster": round(mean["stock trl"] / mean["opengrit"], 2),
        "turns": turns,
        "peak memory MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))
    if options.results:
        replace_section(options.results, f"step {options.model}", section(report))


if __name__ == "__main__":
    main()
