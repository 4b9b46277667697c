"""Nothing got slower: this tree against a worktree of an older commit, the same commands in turns.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --against ../before --results docs/results/cost.md
    python benchmarks/before_after.py --against ../before --parts ask eval --pairs 3

Both trees use this tree's packaged weights, by their folder, so that both read and write the same. Parts: `ask`, `eval`, `check`, `report` and
trainings of some steps (`kl`, `lora`, `processes`: two of them) are whole commands from start to end, whose processor seconds
(all threads) hold on a machine that is not quiet as well; `serve` asks a server over HTTP, one client and then many.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from measuring import command_cost, spread
from opengrit.inference.grounder import Grounder
from opengrit.models.resolve import resolve
from pages import replace_section
from report_speed import write_run
from serve_load import Scene, run, scenes
from servers import own_server

ROOT = Path(__file__).resolve().parents[1]
MODEL = "tiny-qwen2.5-vl"
STEPS, CLIENTS = 6, 32
CHECKED, REPORTED = 100_000, 50_000
Figures = dict[str, float]  # by what was measured; less is better in all of them


def environment(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree / "src")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "opengrit", *arguments]


def ask(tree: Path, folder: Path) -> Figures:
    picture = folder / "picture.png"
    Image.new("RGB", (112, 112), "white").save(picture)
    asked = command(
        "ask", str(picture), "How many dogs are there?", "--model", weights(), "--max-new-tokens", "40"
    )
    cost = command_cost(asked, env=environment(tree), cwd=tree)
    return {"`ask`, cold, processor seconds": cost.processor, "`ask`, cold, MiB": cost.mebibytes}


def evaluation(tree: Path, folder: Path) -> Figures:
    asked = command("eval", "--model", weights(), "--data", "stickers/dev", "--limit", "64")
    cost = command_cost([*asked, "--out", str(folder / "run")], env=environment(tree), cwd=tree)
    return {
        "`eval` of 64 questions, processor seconds": cost.processor,
        "`eval` of 64 questions, MiB": cost.mebibytes,
    }


def checking(tree: Path, folder: Path) -> Figures:
    """100,000 rows about 500 pictures."""
    pictures, file = folder / "pictures", folder / "rows.jsonl"
    pictures.mkdir()
    for number in range(500):
        Image.new("RGB", (64, 48), (number % 256, number // 256, 0)).save(pictures / f"{number}.png")
    with file.open("w", encoding="utf-8") as out:
        for number in range(CHECKED):
            size = {"width": 64, "height": 48, "bboxs": [[number % 30, number % 20, 40, 30]]}
            asked = {"question": f"How many dogs of kind {number} are there?", "answer": str(number % 9)}
            out.write(
                json.dumps(
                    asked | {"image": f"{number % 500}.png", "dataset": "many", "split": "test"} | size
                )
                + "\n"
            )
    cost = command_cost(
        command("data", "check", str(file), "--images", str(pictures)), env=environment(tree), cwd=tree
    )
    name = f"`data check` of {CHECKED:,} rows"
    return {f"{name}, processor seconds": cost.processor, f"{name}, MiB": cost.mebibytes}


def report(tree: Path, folder: Path) -> Figures:
    """One run of 50,000 records, whose pictures are not at hand."""
    write_run(folder / "run", rows=REPORTED, seed=1, skill=0.4)
    asked = command("report", str(folder / "run"), "--out", str(folder / "page.html"))
    cost = command_cost(asked, env=environment(tree), cwd=tree)
    name = f"`report` of {REPORTED:,} records"
    return {f"{name}, processor seconds": cost.processor, f"{name}, MiB": cost.mebibytes}


def training_words(tree: Path, out: Path, *changes: str) -> list[str]:
    """`opengrit`'s arguments for a tree's demo from this tree's packaged weights, without evaluations or checkpoints."""
    settings = (f"model={weights()}", "data.eval=[]", "train.save_steps=null", *changes)
    return [
        "train",
        demo(tree),
        "--quiet",
        "--out",
        str(out),
        *(w for one in settings for w in ("--set", one)),
    ]


def training(name: str, *changes: str, processes: int = 1) -> Callable[[Path, Path], Figures]:
    """Some steps of the demo's recipe, changed."""

    def part(tree: Path, folder: Path) -> Figures:
        words = training_words(tree, folder / "run", f"train.max_steps={STEPS}", *changes)
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(processes),
            "-m",
            "opengrit",
        ]
        started = [*launcher, *words] if processes > 1 else command(*words)
        cost = command_cost(started, env=environment(tree), cwd=tree)
        found = {f"{STEPS} steps, {name}, processor seconds": cost.processor}
        # Of two processes the system tells the larger one's memory, which says nothing of both.
        return found if processes > 1 else found | {f"{STEPS} steps, {name}, MiB": cost.mebibytes}

    return part


def serving(tree: Path, folder: Path) -> Figures:
    with own_server(weights(), env=environment(tree), cwd=tree) as server:
        asyncio.run(run(server.url, pictures(), clients=8, requests=3))  # warms up
        alone = asyncio.run(run(server.url, pictures(), clients=1, requests=40))
        many = asyncio.run(run(server.url, pictures(), clients=CLIENTS, requests=6))
    if not alone.latencies or not many.latencies or alone.failed + many.failed:
        raise SystemExit(f"the server of {tree} did not answer everything")
    return {
        "`serve`, one client, median seconds an answer": alone.percentile(0.5),
        f"`serve`, {CLIENTS} clients, seconds an answer (1 / throughput)": 1 / many.per_second,
    }


def demo(tree: Path) -> str:
    """The demo's recipe, by its name or in a tree from before recipes had names."""
    file = tree / "recipes" / "demo.yaml"
    return str(file) if file.is_file() else "demo"


@functools.cache
def weights() -> str:
    """The folder of this tree's packaged weights."""
    return resolve(MODEL)


@functools.cache
def pictures() -> list[Scene]:
    return scenes(Grounder.load(weights()), 24)


PARTS: dict[str, Callable[[Path, Path], Figures]] = {
    "ask": ask,
    "eval": evaluation,
    "check": checking,
    "report": report,
    "kl": training("beta 0.04", "train.beta=0.04"),
    "lora": training("LoRA", "lora={r: 8, alpha: 16.0, dropout: 0.0, target_modules: all-linear}"),
    "processes": training("two processes", "train.per_device_train_batch_size=80", processes=2),
    "serve": serving,
}


def section(found: dict[str, dict[str, list[float]]], *, pairs: int, before: str) -> str:
    """A row for each figure: medians of both trees, and before over now, pair by pair."""
    lines = [
        f"### Before and after, {before}",
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
        replace_section(options.results, f"before and after, {commit_of(trees['before'])}", text)


if __name__ == "__main__":
    main()
