"""Nothing got slower: this tree against a worktree of an older commit, the same commands in turns.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --against ../before --results docs/speed.md
    python benchmarks/before_after.py --against ../before --parts ask eval --pairs 3

Parts: `ask` and `eval`, whole commands from start to end. Seconds of the processor (all threads) hold on a machine that is
not quiet as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from measuring import command_cost, spread
from pages import replace_section

ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, float]  # by what was measured; less is better in all of them


def environment(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree / "src")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "opengrit", *arguments]


def ask(tree: Path, folder: Path) -> Figures:
    picture = folder / "picture.png"
    Image.new("RGB", (112, 112), "white").save(picture)
    asked = command("ask", str(picture), "How many dogs are there?", "--max-new-tokens", "40")
    cost = command_cost(asked, env=environment(tree), cwd=tree)
    return {"`ask`, cold, processor seconds": cost.processor, "`ask`, cold, MiB": cost.mebibytes}


def evaluation(tree: Path, folder: Path) -> Figures:
    asked = command("eval", "--model", "tiny-qwen2.5-vl", "--data", "stickers/dev", "--limit", "64")
    cost = command_cost([*asked, "--out", str(folder / "run")], env=environment(tree), cwd=tree)
    return {
        "`eval` of 64 questions, processor seconds": cost.processor,
        "`eval` of 64 questions, MiB": cost.mebibytes,
    }


PARTS: dict[str, Callable[[Path, Path], Figures]] = {"ask": ask, "eval": evaluation}


def section(found: dict[str, dict[str, list[float]]], *, pairs: int, before: str) -> str:
    """A row for each figure: medians of both trees, and before over now, pair by pair."""
    lines = [
        "### Before and after",
        "",
        f"This tree against commit {before}, {pairs} pairs of turns on {os.cpu_count()} cores; medians, and how many times less it is "
        f"now, pair by pair with the range (below 1 is slower). Load average at the end: {os.getloadavg()[0]:.1f}.",
        "",
        "| | before | now | times less |",
        "|---|---|---|---|",
    ]
    for name in found["now"]:
        old, new = found["before"][name], found["now"][name]
        ratios = [a / b for a, b in zip(old, new, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(old):.3g} | {statistics.median(new):.3g} | {spread(ratios)} |"
        )
    return "\n".join(lines) + "\n"


def commit_of(tree: Path) -> str:
    asked = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, required=True, help="worktree of the older commit")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()
    trees = {"before": options.against.resolve(), "now": ROOT}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in trees}
    for part in options.parts:
        for _ in range(options.pairs):
            for name, tree in trees.items():
                with tempfile.TemporaryDirectory() as folder:
                    for figure, value in PARTS[part](tree, Path(folder)).items():
                        found[name].setdefault(figure, []).append(value)
                        print(f"{name}: {figure} {value:.3g}", file=sys.stderr, flush=True)
    text = section(found, pairs=options.pairs, before=commit_of(trees["before"]))
    print(text)
    if options.results is not None:
        replace_section(options.results, "before and after", text)


if __name__ == "__main__":
    main()
