"""What it costs to draw completions: transformers' `model.generate` as TRL calls it against our sampler.

Run it with the package installed, from the root of the repository:

    python benchmarks/generate.py --model tiny-qwen2.5-vl --pairs 5

Both draw G completions for each question, with the same weights, prompts and settings, in turns (A B A B). Stock
generation gets every prompt and picture G times, prepared outside its clock, and runs until its longest row stops.
Ours is clocked from the questions to the completions, pictures prepared in the turn that warms up. Two settings:
natural lengths (stock ends at the end token, ours at </answer> as in training) and one fixed length. Prints a
JSON object: seconds, tokens written and tokens a second by turn, ratios by pair and their median; on a GPU also the bytes
a step must read and how long that takes at the device's measured memory bandwidth.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from opengrit.data import load_examples
from opengrit.grounding.prompts import user_text
from opengrit.models import load
from opengrit.models.families import Loaded
from opengrit.models.vision_tower import restore_tower
from opengrit.sampling import Asked, SamplingSettings
from opengrit.sampling.transformers_engine import TransformersSampler
from pages import replace_section

NEVER = "\0never written\0"


@dataclass(frozen=True, slots=True)
class Turn:
    """One run: wall-clock seconds, tokens written (padding excluded) and tokens of the longest completion."""

    seconds: float
    tokens: int
    longest: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def clock(work: Callable[[], list[int]]) -> Turn:
    """A turn of work that returns the lengths of its completions."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    lengths = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Turn(time.perf_counter() - began, sum(lengths), max(lengths))


def stock(
    loaded: Loaded, questions: list[Asked], *, group: int, length: int, fixed: bool
) -> Callable[[int], list[int]]:
    """`model.generate` over a batch in which every prompt and picture stands `group` times, as TRL 1.16 calls it."""
    repeated = [question for question in questions for _ in range(group)]
    turns = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}]
        for question in repeated
    ]
    inputs = loaded.processor(
        images=[[Image.open(question.image).convert("RGB")] for question in repeated],
        text=[
            loaded.processor.apply_chat_template(t, add_generation_prompt=True, tokenize=False) for t in turns
        ],
        padding=True,
        return_tensors="pt",
    ).to(loaded.model.device)
    ends = torch.tensor(loaded.end_ids, device=loaded.model.device)

    def work(seed: int) -> list[int]:
        torch.manual_seed(seed)
        restore_tower(loaded.base)  # ours, which takes the other turns, makes it quicker
        with torch.no_grad():
            whole = loaded.model.generate(
                **inputs,
                max_new_tokens=length,
                min_new_tokens=length if fixed else None,
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                eos_token_id=list(loaded.end_ids),
                pad_token_id=loaded.processor.tokenizer.pad_token_id,
                disable_compile=True,
            )
        written = whole[:, inputs["input_ids"].shape[1] :]
        has_ended = torch.isin(written, ends).int().cumsum(1)
        return [int(n) for n in ((has_ended == 0).sum(1) + (has_ended.amax(1) > 0)).tolist()]

    return work


def ours(
    loaded: Loaded, questions: list[Asked], *, group: int, length: int, fixed: bool
) -> Callable[[int], list[int]]:
    """Our sampler, all rows at once."""
    settings = SamplingSettings(max_new_tokens=length)
    if fixed:
        silent = tuple(sorted({*loaded.forbidden_ids, *loaded.end_ids}))
        loaded, settings = replace(loaded, forbidden_ids=silent), replace(settings, stop=(NEVER,))
    sampler = TransformersSampler(loaded, rows_per_batch=len(questions) * group)

    def work(seed: int) -> list[int]:
        groups = sampler.sample(questions, samples_per_question=group, settings=replace(settings, seed=seed))
        return [len(s.completion.token_ids) for own in groups for s in own]

    return work


def compare(
    loaded: Loaded, questions: list[Asked], *, group: int, length: int, fixed: bool, pairs: int
) -> dict[str, Any]:
    """Turns of both after one that warms up each, and how many times more tokens a second ours writes, by pair."""
    makers = {
        name: make(loaded, questions, group=group, length=length, fixed=fixed)
        for name, make in (("stock generate", stock), ("opengrit", ours))
    }
    for work in makers.values():
        work(0)
    turns: dict[str, list[Turn]] = {name: [] for name in makers}
    for pair in range(1, pairs + 1):
        for name, work in makers.items():
            turns[name].append(clock(lambda work=work, pair=pair: work(pair)))
    ratios = [b.rate / a.rate for a, b in zip(*turns.values(), strict=True)]
    return {
        "length": f"{length} tokens" if fixed else f"natural, at most {length} tokens",
        "turns": {
            name: [asdict(t) | {"tokens a second": round(t.rate, 1)} for t in ts]
            for name, ts in turns.items()
        },
        "times faster": [round(r, 2) for r in ratios],
        "median": round(statistics.median(ratios), 2),
    }


def bytes_a_step(loaded: Loaded, questions: list[Asked], *, group: int, length: float) -> float:
    """What a step must read, once each, when `length` tokens of each completion are written.

    Weights of the language model and its head, keys and values of each prompt once and of the completions row by row.
    """
    model = loaded.base
    text = model.config.get_text_config()
    weights = sum(p.numel() * p.element_size() for p in model.model.language_model.layers.parameters())
    head = model.get_output_embeddings().weight
    weights += head.numel() * head.element_size()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * width * head.element_size()
    sampler = TransformersSampler(loaded)
    prompts = sum(len(sampler.prepare(question).ids) for question in questions)
    return float(weights + per_token * (prompts + len(questions) * group * length))


def copy_rate(device: torch.device, *, size: int = 2**30) -> float:
    """Bytes a second, read and written, of the fastest of ten copies of `size` bytes within the device."""
    block = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    return 2 * size / min(clock(lambda: target.copy_(block).shape[:1]).seconds for _ in range(10))


def bandwidth_floor(
    loaded: Loaded, questions: list[Asked], *, group: int, length: int
) -> dict[str, float] | None:
    """On a GPU: what a step in the middle of the completions must read, and the milliseconds that takes."""
    if not torch.cuda.is_available():
        return None
    read = bytes_a_step(loaded, questions, group=group, length=length / 2)
    rate = copy_rate(loaded.model.device)
    return {
        "bytes a step": read,
        "measured bytes a second": rate,
        "milliseconds a step": read / rate * 1e3,
    }


def section(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    options = report["options"]
    lines = [
        f"### Drawing completions, {options['model']}",
        "",
        f"{options['questions']} questions x {options['group']} completions, temperature 1, {options['pairs']} pairs of turns A B "
        f"after one that warms up. {report['machine']}.",
        "",
        "| length | | seconds, turn by turn | tokens written | tokens a second (median) | longest |",
        "|---|---|---|---|---|---|",
    ]
    for found in report["found"]:
        for name, turns in found["turns"].items():
            seconds = ", ".join(f"{t['seconds']:.2f}" for t in turns)
            tokens = ", ".join(str(t["tokens"]) for t in turns)
            rate = statistics.median(t["tokens a second"] for t in turns)
            lines.append(
                f"| {found['length']} | {name} | {seconds} | {tokens} | {rate:.0f} | {max(t['longest'] for t in turns)} |"
            )
    lines.append("")
    for found in report["found"]:
        low, high = min(found["times faster"]), max(found["times faster"])
        lines.append(
            f"Tokens a second, ours to stock, {found['length']}: {found['median']:.2f} (median; {low:.2f} to {high:.2f})."
        )
    floor = report["bandwidth"]
    if floor is None:
        lines += ["", "Against the bandwidth limit of a GPU: not measured (no GPU here)."]
    else:
        fixed = report["found"][-1]["turns"]["opengrit"]
        step = statistics.median(t["seconds"] / t["longest"] for t in fixed) * 1e3
        lines += [
            "",
            f"A step of the fixed length takes {step:.1f} ms, prompts included; reading what it must at the measured "
            f"{floor['measured bytes a second'] / 1e9:.0f} GB/s takes {floor['milliseconds a step']:.1f} ms.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument("--data", default="stickers/train20")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--limit", type=int, default=160, help="most tokens of a natural completion")
    parser.add_argument("--length", type=int, default=60, help="tokens of a completion of fixed length")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, help="page to put the table into, for example docs/results/cost.md"
    )
    options = parser.parse_args()
    loaded = load(options.model)
    questions = [
        Asked(e.id, e.image, user_text("grounded", e.question, family=loaded.frame))
        for e in load_examples(options.data)[: options.questions]
    ]
    sizes = {"group": options.group, "pairs": options.pairs}
    report = {
        "options": {key: value for key, value in vars(options).items() if key != "results"},
        "machine": f"{torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}",
        "found": [
            compare(loaded, questions, length=options.limit, fixed=False, **sizes),
            compare(loaded, questions, length=options.length, fixed=True, **sizes),
        ],
        "bandwidth": bandwidth_floor(loaded, questions, group=options.group, length=options.length),
    }
    print(json.dumps(report, indent=2))
    if options.results:
        replace_section(options.results, f"generate {options.model}", section(report))


if __name__ == "__main__":
    main()
