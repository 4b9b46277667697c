"""Trains the packaged models with a vLLM in the same process and with the sampler of this one: writes a section of
docs/scaling-checked.md.

    python benchmarks/colocate.py --out runs/colocate --steps 20 --seeds 42 43 --results docs/scaling-checked.md

needs `.venv-vllm` (`python scripts/engines.py vllm`). Both ways train the demo's recipe for as many steps, and what they
made is evaluated by the sampler of this process on the same questions. What is finished is kept: the same command continues.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrit.evaluation.metrics import summarise
from opengrit.runs.folder import FINAL, RunDir
from pages import replace_section

ROOT = Path(__file__).resolve().parents[1]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
EAGER = (
    ROOT / "tests" / "engines" / "eager.py"
)  # a vLLM that compiles nothing, for which a CPU would need minutes
MODELS = ("tiny-qwen2.5-vl", "tiny-internvl3")
SETS = ("stickers/count", "stickers/spatial")
WAYS = {"vllm": "vLLM in the same process", "here": "the sampler of this process"}


@dataclass(frozen=True)
class Trained:
    """One training, measured."""

    model: str
    seed: int
    way: str
    accuracy: float
    reward: float  # mean of the last five steps
    ratio: float | None  # sampled against recomputed probabilities, of the first step


def command(way: str) -> list[str]:
    return [str(VLLM_PYTHON), str(EAGER)] if way == "vllm" else [sys.executable, "-m", "opengrit"]


def run(words: Sequence[object], log: Path) -> None:
    """A command whose words go beside the run; SystemExit names the log where it fails."""
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": str(ROOT / "src")}
    with log.open("ab") as out:
        done = subprocess.run([str(word) for word in words], stdout=out, stderr=out, env=os.environ | quiet)
    if done.returncode:
        raise SystemExit(f"a run failed; see {log}")


def train_and_evaluate(out: Path, model: str, seed: int, way: str, *, steps: int, limit: int) -> Trained:
    """One training and the evaluation of what it made, each once."""
    folder = out / f"{model}-{seed}-{way}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    settings = {"model": model, "train.max_steps": steps, "train.seed": seed, "train.save_steps": "null"}
    if way == "vllm":
        settings["train.vllm_mode"] = "colocate"
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    if not (folder / FINAL).is_dir():
        run([*command(way), "train", "demo", *sets, "--set", "data.eval=[]", "--quiet", "--out", folder], log)
    metrics = list(RunDir.open(folder).metrics())
    return Trained(
        model,
        seed,
        way,
        accuracy(folder, out / f"{folder.name}-evaluated", limit=limit),
        statistics.fmean(row["reward"] for row in metrics[-5:]),
        metrics[0].get("sampling/ratio"),
    )


def accuracy(model: object, evaluated: Path, *, limit: int) -> float:
    """Per cent of the sets' first `limit` questions each that are answered right, greedily, by the sampler of this process."""
    data = [word for name in SETS for word in ("--data", name)]
    words = ["eval", "--model", model, *data, "--limit", limit, "--max-new-tokens", 160, "--quiet"]
    evaluated.parent.mkdir(parents=True, exist_ok=True)
    run([*command("here"), *words, "--out", evaluated], evaluated.with_suffix(".log"))
    records = list(RunDir.open(evaluated).records())
    return 100 * (summarise(records).overall.accuracy.value or 0.0)


def table(untrained: Mapping[str, float], trained: Sequence[Trained]) -> str:
    lines = [
        "| model | seed | sampled by | accuracy, % | reward, last five steps | probability ratio, first step |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {model} | - | not trained | {found:.1f} | - | - |" for model, found in untrained.items()]
    for one in trained:
        ratio = "-" if one.ratio is None else f"{one.ratio:.4f}"
        lines.append(
            f"| {one.model} | {one.seed} | {WAYS[one.way]} | {one.accuracy:.1f} | {one.reward:.2f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder for the runs; what is there is kept"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--limit", type=int, default=240, help="questions of each set")
    parser.add_argument("--results", type=Path, help="the page whose section colocate is written")
    args = parser.parse_args()
    untrained = {
        model: accuracy(model, args.out / f"{model}-untrained", limit=args.limit) for model in args.models
    }
    trained = [
        train_and_evaluate(args.out, model, seed, way, steps=args.steps, limit=args.limit)
        for model in args.models
        for seed in args.seeds
        for way in WAYS
    ]
    text = (
        f"{table(untrained, trained)}\n\n{args.steps} steps of the demo's recipe each, then {args.limit} questions of each of "
        f"{' and '.join(SETS)}, greedy, asked by the sampler of this process."
    )
    print(text)
    if args.results:
        replace_section(args.results, "colocate", text)


if __name__ == "__main__":
    main()
