"""The head over a large vocabulary: tiles of several sizes against the whole logits, TRL's fused head and torch's.

    python benchmarks/head.py                                  # 2,048 tokens, width 64, 151,936 words
    python benchmarks/head.py --words 1500                     # a packaged model's vocabulary
    python benchmarks/head.py --results docs/speed.md          # also writes a section of that page

Every way scores the same labels at once with the entropy, and every round takes all ways in turn; medians over rounds.
`src/opengrit/training/tiled_head.py` holds the size that was chosen. The floor is the matrix products alone, four of the
logits' size forward and backward, at the rate of a large product here. torch's `linear_cross_entropy` has no entropy and
gives the chunked sum only, so that it is measured as a loss of equal weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from trl.kernels import ChunkedLogProbFunction

from opengrit.training.tiled_head import TILE_LOGITS, TILE_WORDS, Tiling, score_labels
from pages import replace_section

SIZES = (
    (65_536, 1_024),
    (131_072, 1_024),
    (262_144, 512),
    (262_144, 2_048),
    (262_144, 8_192),
    (1_048_576, 2_048),
    (2_097_152, 4_096),
)
_TRL_WORDS = 32_768  # as TRL calls it

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def whole(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = hidden @ weight.T
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        torch.distributions.Categorical(logits=log_probs).entropy()
    return log_probs.gather(1, labels[:, None]).sum()


def trl_fused(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    made = ChunkedLogProbFunction.apply(
        hidden, weight, None, labels, 1.0, _TRL_WORDS, None, 1.0, ("log_probs", "entropy")
    )
    return made[0].sum()


def torch_fused(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.linear_cross_entropy(
        hidden, weight, labels, reduction="sum", options=torch.nn.LinearCrossEntropyOptions()
    )


def tiled(logits: int, words: int) -> Way:
    def way(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tiling = Tiling.of(len(weight), logits=logits, words=words)
        return score_labels(hidden, weight, labels, entropy=True, tiling=tiling).log_probs_N.sum()

    return way


def ways() -> dict[str, Way]:
    own = {f"tiles of {size:,} logits, {words:,} words": tiled(size, words) for size, words in SIZES}
    return {
        "whole logits": whole,
        "TRL's fused head": trl_fused,
        "torch's linear_cross_entropy": torch_fused,
        **own,
    }


def seconds(way: Way, tensors: tuple[torch.Tensor, ...], *, backward: bool) -> float:
    began = time.perf_counter()
    with torch.set_grad_enabled(backward):
        total = way(*tensors)
    if backward:
        torch.autograd.grad(total, tensors[:2])
    return time.perf_counter() - began


def product_rate() -> float:
    """FLOPs a second of a large matrix product, the best of five."""
    a = torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


def measure(options: argparse.Namespace) -> tuple[dict[str, dict[str, float]], float]:
    """Median seconds of each way, with and without gradients; and the floor of the former."""
    torch.manual_seed(0)
    hidden = torch.randn(options.rows, options.width).requires_grad_()
    weight = (0.1 * torch.randn(options.words, options.width)).requires_grad_()
    tensors = (hidden, weight, torch.randint(0, options.words, (options.rows,)))
    taken: dict[str, dict[str, list[float]]] = {
        name: {"with gradients": [], "without": []} for name in ways()
    }
    for turn in range(options.rounds + 1):
        for name, way in ways().items():
            for kind, found in taken[name].items():
                took = seconds(way, tensors, backward=kind == "with gradients")
                if turn:  # the first warms up
                    found.append(took)
    floor = 4 * 2 * options.rows * options.width * options.words / product_rate()
    return {n: {k: statistics.median(v) for k, v in kinds.items()} for n, kinds in taken.items()}, floor


def section(options: argparse.Namespace, found: dict[str, dict[str, float]], floor: float) -> str:
    chosen = f"tiles of {TILE_LOGITS:,} logits, {TILE_WORDS:,} words"
    lines = [
        f"### The head alone, {options.words:,} words",
        "",
        f"{options.rows:,} tokens of width {options.width}; medians of {options.rounds} interleaved rounds on a CPU, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}. The matrix products with gradients alone would take "
        f"{floor:.2f} s at the rate of a large product.",
        "",
        "| seconds | with gradients | without |",
        "|---|---|---|",
    ]
    for name, kinds in found.items():
        shown = f"**{name}**" if name == chosen else name
        lines.append(f"| {shown} | {kinds['with gradients']:.3f} | {kinds['without']:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048, help="tokens to score")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--words", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, help="page to put the section into")
    options = parser.parse_args()
    found, floor = measure(options)
    print(json.dumps({"floor": round(floor, 4), **found}, indent=2))
    if options.results:
        replace_section(options.results, f"head {options.words}", section(options, found, floor))


if __name__ == "__main__":
    main()
