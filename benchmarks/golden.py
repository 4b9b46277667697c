"""The demo's training gives the weights that an older commit gave: `python benchmarks/golden.py --against ../before --results docs/results/cost.md`.

Both trees train the demo's recipe from this tree's packaged weights on one thread, and this tree asks what both have made.
How far the weights are apart is told beside how far training moved them: in float32 another order of sums is another
rounding, and a draw that falls on the other side of a bound is another completion from there on.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from before_after import ROOT, commit_of, environment, training_words, weights
from before_after import command as opengrit
from measuring import command_cost
from opengrit.evaluation.metrics import summarise
from opengrit.runs.folder import FINAL, RunDir
from pages import replace_section

SETS = ("stickers/count", "stickers/spatial")


def distance(one: Path, other: Path) -> float:
    """The norm of the difference of two models' weights over the norm of the first's."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    apart = sum(float((first[name].double() - second[name].double()).square().sum()) for name in first)
    whole = sum(float(tensor.double().square().sum()) for tensor in first.values())
    return math.sqrt(apart / whole)


def trained(tree: Path, folder: Path, *, steps: int) -> Path:
    """The folder of the weights that a tree's demo ends with."""
    words = training_words(tree, folder, f"train.max_steps={steps}")
    command_cost(opengrit(*words), env=environment(tree) | {"OMP_NUM_THREADS": "1"}, cwd=tree)
    return folder / FINAL


def asked(model: Path, folder: Path) -> tuple[float, float]:
    """Accuracy in per cent and IoU of greedy answers, by this tree."""
    data = [word for name in SETS for word in ("--data", name)]
    words = ["eval", "--model", str(model), *data, "--max-new-tokens", "160", "--quiet", "--out", str(folder)]
    command_cost(opengrit(*words), env=environment(ROOT) | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    found = summarise(list(RunDir.open(folder).records())).overall
    return 100 * (found.accuracy.value or 0.0), found.grounding_iou.value or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, required=True, help="worktree of the older commit")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()
    trees = {"before": options.against.resolve(), "now": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(weights())
        made = {name: trained(tree, Path(folder) / name, steps=options.steps) for name, tree in trees.items()}
        found = {name: asked(model, Path(folder) / f"{name}-asked") for name, model in made.items()}
        moved, apart = distance(base, made["before"]), distance(made["before"], made["now"])
    text = "\n".join(
        [
            "### The same training",
            "",
            f"The demo's {options.steps} steps from the same weights, seed 0, by commit {commit_of(trees['before'])} and by this tree: "
            f"the final weights differ by {apart:.1e} of their norm, training moved them by {moved:.1e}.",
            "",
            f"| {' and '.join(SETS)}, greedy | accuracy, % | IoU |",
            "|---|---|---|",
            *(f"| {name} | {accuracy:.1f} | {iou:.3f} |" for name, (accuracy, iou) in found.items()),
            "",
        ]
    )
    print(text)
    if options.results is not None:
        replace_section(options.results, "the same training", text)


if __name__ == "__main__":
    main()
