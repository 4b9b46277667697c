"""What one training step costs: stock TRL against GritTrainer on the same weights, rows, groups and completion length.

Run it with the package installed, from the root of the repository:

    python benchmarks/step.py --model tiny-qwen2.5-vl                    # the packaged model
    python benchmarks/step.py --model tiny-qwen2.5-vl --natural          # completions end where they end
    python benchmarks/step.py --model tiny-qwen2.5-vl --sweep            # over groups, prompts and completions
    python benchmarks/step.py --vocabulary real                          # random weights, 151,936 words
    python benchmarks/step.py --shape qwen2.5-vl-3b                      # a real model's shape, on a GPU

The two trainers take turns (A B A B) in one process, each on a fresh copy of the weights; the first step of every turn
warms up and is left out. With a fixed length no completion ends early: end tokens are suppressed in both, and our stop
string is one that cannot be written. With `--natural` both end at an end token, and neither knows a stop string.
Each phase has its own clock (a phase within another is taken out of it). Pictures and language-model tokens are counted
where they enter the model, padding included. Peak memory is that of a process of its own for each trainer.
A phase's floor is the time of its matrix products at the rate of a large one here, and for the generation also that of
reading the weights once a decoded token, at the rate of a large copy. Prints a JSON object; `--results PAGE` also writes a section of that page and a plot beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import vocabulary
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.prompts import user_text
from opengrit.judges import RuleJudge
from opengrit.models import load
from opengrit.models.families import Loaded
from opengrit.models.vision_tower import restore_tower
from opengrit.rewards.rubric import Rubric
from opengrit.training.trainer import GritTrainer
from pages import replace_section
from shapes import SHAPES, build

PHASES = ("preprocess", "generate", "reference", "reward", "loss", "optimizer", "other")
NAMES = ("stock trl", "opengrit")
SWEEP = {"group": (2, 4, 8, 16), "prompt": (200, 700, 1200), "length": (50, 250, 500)}
_NEVER = "\0never written\0"
_COLOURS = ("#E69F00", "#0072B2", "#CC79A7", "#F0E442", "#009E73", "#56B4E9", "#999999")


class Phases:
    """Seconds spent in each phase, step by step; a phase that runs inside another is not counted twice."""

    def __init__(self) -> None:
        self.steps: list[Counter[str]] = []
        self.flops: Counter[str] = Counter()  # of matrix products, while `counter` counts
        self.counter: FlopCounterMode | None = None
        self._open: list[list[Any]] = []  # name, and seconds and FLOPs of phases inside

    def begin_step(self) -> None:
        self.steps.append(Counter())

    def wrap(self, owner: Any, method: str, phase: str) -> None:
        """Let every call of `owner.method` count for the phase."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._open.append([phase, 0.0, 0])
            began, counted = _now(), self._counted()
            try:
                return inner(*args, **kwargs)
            finally:
                self._close(_now() - began, self._counted() - counted)

        setattr(owner, method, timed)

    def _counted(self) -> int:
        return 0 if self.counter is None else self.counter.get_total_flops()

    def _close(self, seconds: float, flops: int) -> None:
        phase, inside, flops_inside = self._open.pop()
        self.flops[phase] += max(0, flops - flops_inside)
        if self.steps:
            self.steps[-1][phase] += seconds - inside
        if self._open:
            self._open[-1][1] += seconds
            self._open[-1][2] += flops


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class _WholeModel:
    """In place of the counter's own tracker, which fails where checkpointing marks embeddings in a pass without gradients."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


def _added_flop(into: torch.Size, a: torch.Size, b: torch.Size, **_: Any) -> int:
    """FLOPs of a product that is added to a matrix."""
    return 2 * a[0] * a[1] * b[1]


class Course(TrainerCallback):
    """Times each step as a whole, and counts the multiplications of the first, which warms up."""

    def __init__(self, trainer: Any, phases: Phases) -> None:
        self.seconds: list[float] = []
        self.flops = 0
        self._trainer, self._phases = trainer, phases
        # torch counts no product that adds to a tensor in place, as the tiled head's gradients do.
        self._counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _added_flop})
        self._counter.mod_tracker = _WholeModel()
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 0:
            self._phases.wrap(self._trainer.optimizer, "step", "optimizer")
            self._counter.__enter__()
            self._phases.counter = self._counter
        self._phases.begin_step()
        self._began = _now()

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        self.seconds.append(_now() - self._began)
        if state.global_step == 1:
            self._counter.__exit__(None, None, None)
            self.flops = self._counter.get_total_flops()
            self._phases.counter = None


def count_work(loaded: Loaded) -> Counter[str]:
    """Counts pictures and language-model tokens that pass through the model from now on.

    A token at a time is "decoded": our sampler does that with the weights alone and has a count of its own.
    """
    counted: Counter[str] = Counter()
    core = loaded.model.model
    tower, key = (core.visual, "grid_thw") if loaded.family.has_grid else (core.vision_tower, "pixel_values")

    def seen(module: Any, args: Any, kwargs: Any) -> None:
        counted.update(pictures=len(kwargs[key]))

    def read(module: Any, args: Any, kwargs: Any) -> None:
        rows, width = kwargs["inputs_embeds"].shape[:2]
        counted.update({"decoded" if width == 1 else "tokens": rows * width})

    tower.register_forward_pre_hook(seen, with_kwargs=True)
    core.language_model.register_forward_pre_hook(read, with_kwargs=True)
    return counted


def config(options: argparse.Namespace, folder: str, **changes: Any) -> GRPOConfig:
    """Both trainers' settings; `options.more`, where it is given, holds further ones."""
    gpu = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": not gpu,
        "bf16": gpu,
        "per_device_train_batch_size": options.questions * options.group // options.passes,
        "gradient_accumulation_steps": options.passes,
        "num_generations": options.group,
        "max_completion_length": options.length,
        "max_steps": options.steps + 1,
        "learning_rate": 1e-6,
        "beta": options.beta,
        "loss_type": "grpo",
        "gradient_checkpointing": options.shape is not None,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        **getattr(options, "more", {}),
        **changes,
    }
    return GRPOConfig(**settings)


def stock(
    options: argparse.Namespace, loaded: Loaded, examples: list[Example], folder: str, phases: Phases
) -> GRPOTrainer:
    """TRL's trainer as its documentation sets it up, with a cheap reward."""
    rows = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": user_text("grounded", e.question)}] for e in examples],
            "image": [Image.open(e.image).convert("RGB") for e in examples],
        }
    )

    def spread(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 7) for ids in completion_ids]

    fixed = {} if options.natural else {"min_new_tokens": options.length}
    trainer = GRPOTrainer(
        model=loaded.model,
        reward_funcs=[spread],
        args=config(options, folder, generation_kwargs=fixed),
        train_dataset=rows,
        processing_class=loaded.processor,
    )
    phases.wrap(trainer, "_tokenize_prompts", "preprocess")
    phases.wrap(loaded.processor.image_processor, "preprocess", "preprocess")
    phases.wrap(trainer, "_generate_single_turn", "generate")
    phases.wrap(trainer, "_calculate_rewards", "reward")
    return trainer


def ours(
    options: argparse.Namespace, loaded: Loaded, examples: list[Example], folder: str, phases: Phases
) -> GritTrainer:
    """Our trainer, with the paper's rewards."""
    silent = tuple(sorted({*loaded.forbidden_ids, *loaded.end_ids}))
    trainer = GritTrainer(
        loaded if options.natural else replace(loaded, forbidden_ids=silent),
        examples,
        args=config(options, folder),
        protocol=EvaluationProtocol("grounded", loaded.frame, RuleJudge(), Rubric.named("paper")),
        stop=(_NEVER,),
    )
    phases.wrap(trainer, "_roll_out", "reward")  # parsing, judging and scoring are what is left of it
    phases.wrap(trainer, "_calculate_rewards", "reward")
    phases.wrap(trainer.sampler, "sample", "generate")
    phases.wrap(trainer.sampler, "prepare", "preprocess")
    return trainer


def let_every_row_learn(trainer: Any) -> None:
    """Gives every completion an advantage, so that both trainers make the same gradient whatever was written."""
    score, group = trainer._calculate_rewards, trainer.num_generations

    def spread(*args: Any) -> torch.Tensor:
        totals = score(*args)
        if isinstance(trainer, GritTrainer):  # it would not learn from groups whose rewards are all the same
            trainer._flat_groups = [False] * len(trainer._flat_groups)
        return torch.arange(len(totals), device=totals.device, dtype=totals.dtype)[:, None] % group

    trainer._calculate_rewards = spread


def time_log_probabilities(trainer: Any, phases: Phases) -> None:
    """Log-probabilities within the loss are its own; others are the reference's or of the policy before the step."""
    score, lose = trainer._get_per_token_logps_and_entropies, trainer._compute_loss
    phases.wrap(trainer, "_get_per_token_logps_and_entropies", "reference")
    outside = trainer._get_per_token_logps_and_entropies

    def loss(*args: Any, **kwargs: Any) -> Any:
        trainer._get_per_token_logps_and_entropies = score
        try:
            return lose(*args, **kwargs)
        finally:
            trainer._get_per_token_logps_and_entropies = outside

    trainer._compute_loss = loss
    phases.wrap(trainer, "_compute_loss", "loss")
    phases.wrap(trainer.accelerator, "backward", "loss")


def fresh(options: argparse.Namespace) -> Loaded:
    return build(options.shape) if options.shape else load(options.folder or options.model)


@dataclass(frozen=True, slots=True)
class Turn:
    """An average step of a turn, its first left out: seconds, seconds by phase, pictures, tokens; matrix FLOPs."""

    seconds: float
    phases: dict[str, float]
    pictures: float
    tokens: float
    flops: int
    phase_flops: dict[str, int]
    weights: int  # bytes
    rate: float  # of a large matrix product, FLOPs a second, before and after
    copied: float  # bytes a second that a large copy reads, before and after


def turn(options: argparse.Namespace, make: Callable[..., Any], examples: list[Example]) -> Turn:
    loaded = fresh(options)
    if make is stock:
        restore_tower(loaded.base)  # ours is quicker than that of transformers
    phases, counted = Phases(), count_work(loaded)
    rates = [(matmul_rate(), copy_rate())]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(options, loaded, examples, folder, phases)
        let_every_row_learn(trainer)
        time_log_probabilities(trainer, phases)
        course = Course(trainer, phases)
        trainer.add_callback(course)
        trainer.train()
    rates.append((matmul_rate(), copy_rate()))
    steps = len(course.seconds)
    taken = {p: statistics.mean(s[p] for s in phases.steps[1:]) for p in PHASES}
    seconds = statistics.mean(course.seconds[1:])
    taken["other"] = seconds - sum(taken.values())
    decoded = trainer.sampler.counts.decode_tokens if isinstance(trainer, GritTrainer) else counted["decoded"]
    tokens = (counted["tokens"] + decoded) / steps
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return Turn(
        seconds, taken, counted["pictures"] / steps, tokens, course.flops, dict(phases.flops), weights,
        *(statistics.mean(found) for found in zip(*rates, strict=True)),
    )  # fmt: skip


def longer(examples: list[Example], loaded: Loaded, *, tokens: int) -> list[Example]:
    """The examples with words added to their questions until prompts have about `tokens` tokens."""
    from opengrit.sampling import Asked
    from opengrit.sampling.transformers_engine import TransformersSampler

    first = examples[0]
    asked = Asked(first.id, first.image, user_text("grounded", first.question))
    missing = max(0, tokens - len(TransformersSampler(loaded).prepare(asked).ids))
    word = len(loaded.processor.tokenizer(" dog", add_special_tokens=False)["input_ids"])
    return [replace(e, question=e.question + " dog" * (missing // word)) for e in examples]


def matmul_rate() -> float:
    """FLOPs a second of a large matrix product here, the best of five."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=kind)
    best = float("inf")
    for _ in range(6):
        began = _now()
        a @ a
        best = min(best, _now() - began)
    return 2 * side**3 / best


def copy_rate() -> float:
    """Bytes a second that a large copy reads, the best of five."""
    a = torch.empty(2**26, device="cuda" if torch.cuda.is_available() else "cpu")
    b = torch.zeros_like(a)
    best = float("inf")
    for _ in range(6):
        began = _now()
        b.copy_(a)
        best = min(best, _now() - began)
    return a.numel() * a.element_size() / best


def floors(options: argparse.Namespace, made: Turn) -> dict[str, float]:
    """Seconds that a phase cannot go below: its matrix products, and while generating the weights, read a token at a time.

    At the rates of this turn's own moments, because a shared machine is now faster and now slower.
    """
    found = {phase: made.phase_flops.get(phase, 0) / made.rate for phase in ("generate", "reference", "loss")}
    found["generate"] = max(found["generate"], options.length * made.weights / made.copied)
    return found


def over_floor(options: argparse.Namespace, turns: list[Turn], phase: str) -> list[float]:
    """How many times its floor a phase takes, turn by turn."""
    return [made.phases[phase] / low for made in turns if (low := floors(options, made)[phase]) > 1e-3]


def peak_memory(options: argparse.Namespace, name: str) -> float:
    """MiB that a process of its own takes at most to train with one of the trainers, interpreter and model included."""
    kept = [
        "model",
        "folder",
        "shape",
        "data",
        "questions",
        "group",
        "length",
        "beta",
        "passes",
        "prompt",
        "steps",
    ]
    command = [sys.executable, __file__, "--alone", name]
    for key in kept:
        if getattr(options, key) is not None:
            command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(
        command + ["--natural"] * options.natural, capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def alone(options: argparse.Namespace, examples: list[Example]) -> float:
    """Trains with one trainer and returns the peak: of the GPU's memory where there is one, else of the process."""
    turn(options, {"stock trl": stock, "opengrit": ours}[options.alone], examples)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_of_process()


def peak_of_process() -> float:
    """MiB of main memory that this process has had at most."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 1024
        )
    # Linux: getrusage would tell the peak of the process that started this one where that is higher.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def pairs(options: argparse.Namespace, examples: list[Example], rounds: int) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        turns["stock trl"].append(turn(options, stock, examples))
        turns["opengrit"].append(turn(options, ours, examples))
    return turns


def ratios(turns: dict[str, list[Turn]], phase: str | None = None) -> list[float]:
    """Stock over ours, pair by pair; of the whole step, or of a phase."""

    def seconds(made: Turn) -> float:
        return made.seconds if phase is None else made.phases[phase]

    made = zip(turns["stock trl"], turns["opengrit"], strict=True)
    return [seconds(a) / seconds(b) for a, b in made if seconds(b) > 1e-4]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]" if values else "-"


def median(turns: list[Turn], phase: str | None = None) -> float:
    return statistics.median(t.seconds if phase is None else t.phases[phase] for t in turns)


def heading(options: argparse.Namespace) -> str:
    """What was measured, in the page's marker and title."""
    kind = "sweep" if options.sweep else "natural lengths" if options.natural else "fixed length"
    real = ", real vocabulary" if options.vocabulary == "real" else ""
    kl = f", beta {options.beta:g}" if options.beta else ""
    return f"{options.shape or options.model}{real}, {kind}{kl}"


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def section(options: argparse.Namespace, turns: dict[str, list[Turn]], memory: dict[str, float]) -> str:
    """The turns as Markdown: a table of phases, one of work, and the floor."""
    ends = "ending where they end, at most" if options.natural else "each of"
    lines = [
        f"### One training step, {heading(options)}",
        "",
        f"{options.questions} questions x {options.group} completions {ends} {options.length} tokens, beta {options.beta:g}; "
        f"{options.rounds} pairs of turns, {options.steps} step{'s' * (options.steps > 1)} a turn after one that warms up; medians over turns, ratios "
        f"pair by pair with their range. {machine()}.",
        "",
        "| seconds a step | stock TRL 1.16 | OpenGRIT | times faster |",
        "|---|---|---|---|",
    ]
    for phase in (*PHASES, None):
        a, b = (median(turns[name], phase) for name in NAMES)
        lines.append(f"| {phase or '**whole step**'} | {a:.3f} | {b:.3f} | {spread(ratios(turns, phase))} |")
    a, b = turns["stock trl"][0], turns["opengrit"][0]
    lines += [
        "",
        "| work a step | stock TRL 1.16 | OpenGRIT |",
        "|---|---|---|",
        f"| pictures encoded | {a.pictures:.0f} | {b.pictures:.0f} |",
        f"| language-model tokens, padding included | {a.tokens:.0f} | {b.tokens:.0f} |",
        f"| FLOPs of matrix products, 10^9 | {a.flops / 1e9:.0f} | {b.flops / 1e9:.0f} |",
    ]
    if memory:
        lines.append(
            f"| peak memory of the process, MiB | {memory['stock trl']:.0f} | {memory['opengrit']:.0f} |"
        )
    over = "; ".join(
        f"{phase} {spread(found)} times its floor"
        for phase in ("generate", "reference", "loss")
        if (found := over_floor(options, turns["opengrit"], phase))
    )
    rate = statistics.median(made.rate for made in turns["opengrit"])
    shares = [
        statistics.median(made.flops / made.rate / made.seconds for made in turns[name]) for name in NAMES
    ]
    lines += [
        "",
        f"The floor: a large matrix product runs at {rate / 1e9:.0f} x 10^9 FLOPs a second here (measured before and after each turn), at "
        f"which a step's matrix products take {shares[0]:.0%} of stock TRL's time and {shares[1]:.0%} of OpenGRIT's. Products inside "
        "fused attention are counted where torch counts them (not on a CPU). The rest is small matrices that do not reach that rate, "
        f"element-wise work and, token by token in decoding, calls. OpenGRIT's phases, turn by turn: {over}.",
    ]
    return "\n".join(lines) + "\n"


def bars(options: argparse.Namespace, turns: dict[str, list[Turn]]) -> str:
    """The phases of both trainers as an SVG of two bars."""
    width, left, height = 720, 90, 150
    longest = max(median(turns[name]) for name in NAMES)
    scale = (width - left - 70) / longest
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>Seconds of one training step by phase, {heading(options)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for row, name in enumerate(NAMES):
        x, y = float(left), 16 + row * 44
        drawn.append(f'<text x="{left - 8}" y="{y + 21}" text-anchor="end">{name}</text>')
        for phase, colour in zip(PHASES, _COLOURS, strict=True):
            seconds = max(0.0, median(turns[name], phase))
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{seconds * scale:.1f}" height="32" fill="{colour}">'
                f"<title>{phase}: {seconds:.3f} s</title></rect>"
            )
            x += seconds * scale
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 21}">{median(turns[name]):.2f} s</text>')
    for place, (phase, colour) in enumerate(zip(PHASES, _COLOURS, strict=True)):
        x = left + place * 88
        drawn.append(f'<rect x="{x}" y="{height - 30}" width="12" height="12" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 16}" y="{height - 19}">{phase}</text>')
    return "\n".join([*drawn, "</svg>"]) + "\n"


def sweep(options: argparse.Namespace, examples: list[Example]) -> tuple[list[dict[str, Any]], str]:
    """One pair of turns at each point, one size changed at a time; the points and their table."""
    base = {"group": options.group, "prompt": options.prompt or 200, "length": 50}
    points = []
    for size, values in SWEEP.items():
        for value in values:
            at = argparse.Namespace(**{**vars(options), **base, size: value})
            rows = longer(examples[: at.questions], fresh(at), tokens=at.prompt)
            turns = pairs(at, rows, 1)
            a, b = turns["stock trl"][0], turns["opengrit"][0]
            points.append(
                {
                    "G": at.group,
                    "P": at.prompt,
                    "C": at.length,
                    "stock s": round(a.seconds, 3),
                    "ours s": round(b.seconds, 3),
                    "ratio": round(a.seconds / b.seconds, 2),
                    "stock tokens": round(a.tokens),
                    "ours tokens": round(b.tokens),
                }
            )
            print(json.dumps(points[-1]), file=sys.stderr)
    lines = [
        f"### One training step, {heading(options)}",
        "",
        f"{options.questions} questions; group G, prompt P and completion C in tokens, one of them changed at a time; one pair "
        f"of turns a point, {options.steps} steps a turn. {machine()}.",
        "",
        "| " + " | ".join(points[0]) + " |",
        "|" + "---|" * len(points[0]),
        *("| " + " | ".join(str(v) for v in point.values()) + " |" for point in points),
    ]
    return points, "\n".join(lines) + "\n"


def ratio_bars(points: Sequence[Mapping[str, Any]], called: str) -> str:
    """How many times faster at each point of a sweep, as an SVG of one bar a point."""
    width, left, row = 720, 190, 26
    height = row * len(points) + 20
    scale = (width - left - 60) / max(point["ratio"] for point in points)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>Times faster than stock TRL, {called}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for place, point in enumerate(points):
        y, long = 10 + place * row, point["ratio"] * scale
        sizes = ", ".join(f"{size} {point[size]}" for size in ("G", "P", "C"))
        drawn += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{sizes}</text>',
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="20" fill="{_COLOURS[1]}"/>',
            f'<text x="{left + long + 6:.1f}" y="{y + 15}">{point["ratio"]:.2f}</text>',
        ]
    once = left + scale  # as fast as stock
    drawn.append(
        f'<line x1="{once:.1f}" y1="4" x2="{once:.1f}" y2="{height - 6}" stroke="#000" stroke-dasharray="4 3"/>'
    )
    return "\n".join([*drawn, "</svg>"]) + "\n"


def plot_beside(results: Path, name: str, plot: str) -> str:
    """Writes a section's plot beside the page; the line that shows it."""
    path = results.with_name(f"{name.replace(', ', '-').replace(' ', '-')}.svg")
    path.write_text(plot, encoding="utf-8")
    return f"![{name}]({path.name})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), help="random weights in a real model's shape, on a GPU"
    )
    parser.add_argument(
        "--vocabulary", choices=("toy", "real"), default="toy",
        help="real: random weights of 10 M parameters in the model's family with 151,936 words, on 4 questions x 8 of 64 tokens",
    )  # fmt: skip
    parser.add_argument(
        "--folder", help=argparse.SUPPRESS
    )  # the model's, for the process that measures memory
    parser.add_argument("--data", default="stickers/train20")
    parser.add_argument("--questions", type=int, help="default: 20, with the real vocabulary 4")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument(
        "--length", type=int, help="default: 60, with the real vocabulary 64; natural: 160, as the demo"
    )
    parser.add_argument("--prompt", type=int, help="tokens of a prompt, about; default: as the data has it")
    parser.add_argument("--natural", action="store_true", help="completions end where they end")
    parser.add_argument("--passes", type=int, default=1, help="forward and backward passes of a step")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of turns")
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--alone", choices=NAMES, help="train with one trainer and print its peak memory")
    parser.add_argument("--results", type=Path, help="page to put the section into; its plot goes beside it")
    options = parser.parse_args()
    real = options.vocabulary == "real"
    options.questions = options.questions or (4 if real else 20)
    options.length = options.length or (160 if options.natural else 64 if real else 60)
    return options


def main() -> None:
    options = arguments()
    if options.vocabulary == "toy":
        measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = str(vocabulary.build(options.model, Path(folder) / "model", ends=options.natural))
        measure(options)


def measure(options: argparse.Namespace) -> None:
    name = f"step {heading(options)}"
    if options.shape and not torch.cuda.is_available():
        text = f"### One training step, {heading(options)}\n\nNot measured: this machine has no GPU.\n"
        print(json.dumps({"shape": options.shape, "measured": False}))
        if options.results:
            replace_section(options.results, name, text)
        return
    examples = load_examples(options.data)[: options.questions]
    if options.sweep:
        points, text = sweep(options, examples)
        print(json.dumps(points, indent=2))
        if options.results:
            shown = plot_beside(options.results, name, ratio_bars(points, heading(options)))
            replace_section(options.results, name, f"{text}\n{shown}")
        return
    if options.prompt:
        examples = longer(examples, fresh(options), tokens=options.prompt)
    if options.alone:
        print(alone(options, examples))
        return
    turns = pairs(options, examples, options.rounds)
    memory = {} if options.no_memory else {name: peak_memory(options, name) for name in NAMES}
    report = {
        "options": {key: value for key, value in vars(options).items() if key != "results"},
        "machine": machine(),
        "times faster, pair by pair": [round(r, 2) for r in ratios(turns)],
        "seconds a step": {n: [round(t.seconds, 3) for t in turns[n]] for n in NAMES},
        "floors": {n: {p: round(s, 4) for p, s in floors(options, turns[n][0]).items()} for n in NAMES},
        "times the floor": {
            p: [round(x, 2) for x in over_floor(options, turns["opengrit"], p)] for p in ("generate", "loss")
        },
        "phases": {n: {p: round(median(turns[n], p), 4) for p in PHASES} for n in NAMES},
        "pictures": {n: turns[n][0].pictures for n in NAMES},
        "tokens": {n: turns[n][0].tokens for n in NAMES},
        "matrix FLOPs": {n: turns[n][0].flops for n in NAMES},
        "matmul FLOPs a second": [round(made.rate) for made in turns["opengrit"]],
        "peak memory MiB": memory,
    }
    print(json.dumps(report, indent=2))
    if options.results:
        shown = plot_beside(options.results, name, bars(options, turns))
        replace_section(options.results, name, f"{section(options, turns, memory)}\n{shown}")


if __name__ == "__main__":
    main()
