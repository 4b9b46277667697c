"""Trains the demo with several seeds, measures before and after, and writes the table of docs/results.md.

    python benchmarks/demo_seeds.py --out runs/seeds --model tiny-qwen2.5-vl --seeds 0 1 2

What is done already (a finished training, a complete evaluation) is not done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from opengrit.metrics import (
    Estimate,
    Quantity,
    count_error,
    estimate,
    follows_format,
    grounding_iou,
    mcnemar,
    paired_difference,
    right,
    truncated,
    unjudged,
    whole_picture_iou,
)
from opengrit.rundir import RunDir
from opengrit.types import Record
from pages import replace_section

SETS = ("stickers/count", "stickers/spatial")
RECIPE = "recipes/demo.yaml"
COLUMNS: tuple[tuple[str, Quantity, float], ...] = (
    ("accuracy, %", right, 100.0),
    ("grounding IoU", grounding_iou, 1.0),
    ("full format, %", follows_format, 100.0),
    ("count error", count_error, 1.0),
    ("truncated, %", truncated, 100.0),
    ("unjudged, %", unjudged, 100.0),
)


def opengrit(*arguments: str) -> None:
    """Runs the installed command; a failure ends this script."""
    print("opengrit", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("opengrit")), *arguments], check=True)


def measured(model: str, out: Path, strategy: str = "grounded") -> list[Record]:
    """The records of a model on the two held-out sets, greedy."""
    data = [word for name in SETS for word in ("--data", name)]
    how = ["--strategy", strategy, "--max-new-tokens", "160", "--quiet"]
    opengrit("eval", "--model", model, *data, *how, "--out", str(out))
    return list(RunDir.open(out).records())


def trained(model: str, run: Path, changes: list[str]) -> Path:
    """The run of the demo recipe with some changes, trained now unless it is there already."""
    if not (run / "final").is_dir():
        words = [word for change in [f"model={model}", *changes] for word in ("--set", change)]
        resume = ["--resume"] if (run / "recipe.yaml").is_file() else []
        opengrit("train", RECIPE, *words, "--out", str(run), "--quiet", *resume)
    return run


@dataclass(frozen=True, slots=True)
class Measured:
    """Records of the base, of the same base asked plainly, of each seed, and of the control without boxes in its reward."""

    before: list[Record]
    plain: list[Record]
    after: dict[int, list[Record]]
    control: list[Record]


def run_all(model: str, seeds: list[int], out: Path) -> Measured:
    """Everything the table of a model needs."""
    folder = out / model
    before = measured(model, folder / "before")
    plain = measured(model, folder / "plain", "direct")
    after = {}
    for seed in seeds:
        run = trained(model, folder / f"train-seed{seed}", [f"train.seed={seed}"])
        after[seed] = measured(str(run), folder / f"after-seed{seed}")
    run = trained(model, folder / "train-answer-only", [f"train.seed={seeds[0]}", "rewards=answer_only"])
    return Measured(before, plain, after, measured(str(run), folder / "after-answer-only"))


def show(found: Estimate, scale: float, *, signed: bool = False) -> str:
    """A value with its interval, or a dash."""
    if found.value is None:
        return "-"
    digits = 1 if scale == 100.0 else 3
    text = f"{found.value * scale:{'+' if signed else ''}.{digits}f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"


def table(model: str, found: Measured) -> str:
    """The Markdown section of one model."""
    before, after = found.before, found.after
    pooled = [record for records in after.values() for record in records]
    lines = [
        f"### {model}",
        "",
        f"n = {len(before)} questions ({', '.join(SETS)}), grounded prompt, greedy; 95 % bootstrap intervals over questions. "
        f"Whole-picture control for IoU: {show(estimate(before, whole_picture_iou), 1.0)}.",
        "",
        "| | " + " | ".join(name for name, _, _ in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        "| base | " + " | ".join(show(estimate(before, q), s) for _, q, s in COLUMNS) + " |",
    ]
    for seed, records in after.items():
        lines.append(
            f"| seed {seed} | " + " | ".join(show(estimate(records, q), s) for _, q, s in COLUMNS) + " |"
        )
    lines.append(
        f"| difference, {len(after)} seeds pooled | "
        + " | ".join(show(paired_difference(before, pooled, q), s, signed=True) for _, q, s in COLUMNS)
        + " |"
    )
    lines.append("")
    lines.insert(
        -2,
        f"| control: rewards `answer_only`, seed {next(iter(after))} | "
        + " | ".join(show(estimate(found.control, q), s) for _, q, s in COLUMNS)
        + " |",
    )
    lines.append(
        f"Asked plainly (strategy `direct`, no boxes wanted) the base answers {show(estimate(found.plain, right), 100.0)} % "
        "correctly. The control is plain GRPO on the answer alone, the same recipe otherwise.\n"
    )
    for seed, records in after.items():
        turned = mcnemar(before, records)
        lines.append(
            f"Seed {seed}: {turned.improved} answers turned right, {turned.worsened} turned wrong (exact McNemar p = {turned.p:.2g})."
        )
    for name in SETS:
        was = [r for r in before if r.example.dataset == name]
        now = [r for r in pooled if r.example.dataset == name]
        lines.append(
            f"\n{name}: accuracy {show(estimate(was, right), 100.0)} to {show(estimate(now, right), 100.0)} %, "
            f"IoU {show(estimate(was, grounding_iou), 1.0)} to {show(estimate(now, grounding_iou), 1.0)}, "
            f"full format {show(estimate(was, follows_format), 100.0)} to {show(estimate(now, follows_format), 100.0)} %."
        )
    return "\n".join(lines) + "\n"


def context(out: Path, model: str) -> str:
    """What the numbers were made with."""
    environment = json.loads((next((out / model).glob("train-seed*")) / "environment.json").read_text())
    versions = ", ".join(
        f"{name} {environment['packages'][name]}"
        for name in ("torch", "transformers", "trl")
        if name in environment["packages"]
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return (
        f"Recipe `{RECIPE}`; table written at commit {commit.stdout.strip()}, {platform.machine()} CPU, 32 bits, "
        f"Python {platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("docs/results.md"))
    args = parser.parse_args()
    text = table(args.model, run_all(args.model, args.seeds, args.out)) + "\n" + context(args.out, args.model)
    replace_section(args.results, f"demo {args.model}", text)
    print(text)


if __name__ == "__main__":
    main()
