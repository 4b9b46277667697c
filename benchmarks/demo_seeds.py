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


def measured(model: str, out: Path) -> list[Record]:
    """The records of a model on the two held-out sets, greedy under the grounded prompt."""
    data = [word for name in SETS for word in ("--data", name)]
    opengrit("eval", "--model", model, *data, "--max-new-tokens", "160", "--out", str(out), "--quiet")
    return list(RunDir.open(out).records())


def run_all(
    model: str, seeds: list[int], out: Path, overrides: list[str]
) -> tuple[list[Record], dict[int, list[Record]]]:
    """Records of the base and of each seed's trained model."""
    before = measured(model, out / model / "before")
    after = {}
    for seed in seeds:
        run = out / model / f"train-seed{seed}"
        if not (run / "final").is_dir():
            changes = [
                word
                for change in [f"model={model}", f"train.seed={seed}", *overrides]
                for word in ("--set", change)
            ]
            resume = ["--resume"] if (run / "recipe.yaml").is_file() else []
            opengrit("train", RECIPE, *changes, "--out", str(run), "--quiet", *resume)
        after[seed] = measured(str(run), out / model / f"after-seed{seed}")
    return before, after


def show(found: Estimate, scale: float, *, signed: bool = False) -> str:
    """A value with its interval, or a dash."""
    if found.value is None:
        return "-"
    digits = 1 if scale == 100.0 else 3
    text = f"{found.value * scale:{'+' if signed else ''}.{digits}f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"


def table(model: str, before: list[Record], after: dict[int, list[Record]]) -> str:
    """The Markdown section of one model."""
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
    environment = json.loads(next((out / model).glob("train-seed*/environment.json")).read_text())
    versions = ", ".join(
        f"{k} {v}"
        for k, v in environment.items()
        if isinstance(v, str) and k in ("torch", "transformers", "trl")
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"Recipe `{RECIPE}`, commit {commit}, {platform.machine()} CPU, Python {platform.python_version()}{', ' + versions if versions else ''}."


def replace_section(page: Path, name: str, text: str) -> None:
    """Puts the text between the page's two markers of that name, which are added at its end if they are missing."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
    if start not in old:
        old += f"\n{start}\n{end}\n"
    head, _, rest = old.partition(start)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{start}\n{text}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="further recipe changes")
    parser.add_argument("--results", type=Path, default=Path("docs/results.md"))
    args = parser.parse_args()
    before, after = run_all(args.model, args.seeds, args.out, args.overrides)
    text = table(args.model, before, after) + "\n" + context(args.out, args.model)
    replace_section(args.results, f"demo {args.model}", text)
    print(text)


if __name__ == "__main__":
    main()
