"""Kills a training at random moments, resumes it, and compares it with one that was not: writes a section of docs/endurance.md.

    python benchmarks/kill.py --out runs/kill --attempts 20 --seed 0 --results docs/endurance.md

trains the recipe once without a disturbance. Then it starts the same command again and again and kills it (SIGKILL) at
moments drawn evenly over the time that the steps left should take, from when the model is loaded; a training that gets
through is compared with the first one, bit for bit, and a new one is begun. After every kill each checkpoint is read through.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrit.core.errors import RunError
from opengrit.runs.folder import FINAL, RECIPE, STAGED, RunDir
from opengrit.runs.recipe_comparison import recipe_hash
from opengrit.training.checkpoint_sidecar import check_files, read_sidecar
from pages import replace_section


@dataclass(frozen=True)
class Kill:
    """What stood in the run's folder when the process was gone."""

    run: str
    seconds: float
    last_step: int | None
    newest: str | None
    half_written: bool
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A run that was killed beside the one that was not."""

    run: str
    same_weights: bool
    rollouts: int
    same_rollouts: bool


def start(recipe: Path, out: Path, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """The command line, started or resumed; what it prints goes beside the run."""
    command = [sys.executable, "-m", "opengrit", "train", str(recipe), "--out", str(out), "--quiet"]
    command += [word for override in overrides for word in ("--set", override)]
    if (out / RECIPE).is_file():
        command.append("--resume")
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_until_begun(process: subprocess.Popen[bytes], out: Path, *, before: int) -> None:
    """Wait until the training has its model and writes its environment, one file more than `before`."""
    while process.poll() is None and times_begun(out) == before:
        time.sleep(0.01)


def times_begun(out: Path) -> int:
    """How often a training in the folder got as far as its first step."""
    return len(list(out.glob("environment*.json")))


def whole(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait for a training that nothing disturbs."""
    if process.wait():
        raise SystemExit(f"the training in {out} failed; see {out.parent / out.name}.log")


def look(out: Path, seconds: float) -> Kill:
    """The state of a run's folder after a kill, every checkpoint read through."""
    if not (out / RECIPE).is_file():
        return Kill(out.name, seconds, None, None, False, ())
    run = RunDir.open(out)
    unreadable = []
    for path in run.checkpoints():
        try:
            sidecar = read_sidecar(path)
            if sidecar is None:
                raise RunError(f"{path} has no account of itself")
            check_files(path, sidecar)
        except RunError as error:
            unreadable.append(str(error))
    steps = [row["step"] for row in run.metrics()]
    names = [path.name for path in run.checkpoints()]
    staged = any(path.name.startswith(STAGED) for path in out.rglob("*"))
    return Kill(
        out.name,
        seconds,
        steps[-1] if steps else None,
        names[-1] if names else None,
        staged,
        tuple(unreadable),
    )


def compare(out: Path, undisturbed: Path) -> Comparison:
    """Weights by their bytes, rollouts by id with everything that a record holds."""
    ours, theirs = ({r.id: r for r in RunDir.open(folder).records()} for folder in (out, undisturbed))
    files = [folder / FINAL / "model.safetensors" for folder in (out, undisturbed)]
    return Comparison(out.name, files[0].read_bytes() == files[1].read_bytes(), len(ours), ours == theirs)


def steps_done(out: Path) -> int:
    """The step of the newest checkpoint."""
    if not (out / RECIPE).is_file():
        return 0
    run = RunDir.open(out)
    return max(map(run.step_of, run.checkpoints()), default=0)


def torment(
    recipe: Path, out: Path, *, attempts: int, minutes: float, seed: int, overrides: Sequence[str]
) -> tuple[list[Kill], list[Comparison]]:
    """The kills, and each run that got through compared with the undisturbed one."""
    ends = time.monotonic() + 60 * minutes
    undisturbed = out / "undisturbed"
    process = start(recipe, undisturbed, overrides)
    wait_until_begun(process, undisturbed, before=0)
    began = time.monotonic()
    whole(process, undisturbed)
    num_steps = steps_done(undisturbed)
    seconds_a_step = (time.monotonic() - began) / num_steps
    moments, current = random.Random(seed), out / "run-1"
    kills: list[Kill] = []
    compared: list[Comparison] = []
    while len(kills) < attempts and time.monotonic() < ends:
        before, left = times_begun(current), num_steps - steps_done(current)
        process = start(recipe, current, overrides)
        wait_until_begun(process, current, before=before)
        began = time.monotonic()
        seconds = moments.uniform(0, seconds_a_step * max(1, left))
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills.append(look(current, seconds))
            print(kills[-1], flush=True)
            continue
        whole(process, current)
        if left:  # the machine got faster
            seconds_a_step = (time.monotonic() - began) / left
        compared.append(compare(current, undisturbed))
        print(compared[-1], flush=True)
        current = out / f"run-{len(compared) + 1}"
    whole(start(recipe, current, overrides), current)
    compared.append(compare(current, undisturbed))
    return kills, compared


def section(recipe: Path, out: Path, kills: list[Kill], compared: list[Comparison], how: str) -> str:
    """The Markdown section."""
    run = RunDir.open(out / "undisturbed")
    unreadable = sum(len(kill.unreadable) for kill in kills)
    killed = {kill.run for kill in kills}
    compared = [c for c in compared if c.run in killed]  # others got through before their moment came
    equal = sum(c.same_weights for c in compared)
    complete = sum(c.same_rollouts for c in compared)
    lines = [
        f"{len(kills)} kills (SIGKILL) of `opengrit train {recipe}` in {len(compared)} run(s): "
        f"**{equal} of {len(compared)} end with the weights of the undisturbed one, bit for bit; "
        f"{complete} of {len(compared)} have exactly its {compared[0].rollouts} rollouts; "
        f"{unreadable} checkpoints were unreadable.**",
        "",
        "| kill | run | after, s | newest checkpoint | last step in metrics | something half written | checkpoints read through |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, kill in enumerate(kills, 1):
        cells = (
            str(number),
            kill.run,
            f"{kill.seconds:.1f}",
            kill.newest or "none",
            "none" if kill.last_step is None else str(kill.last_step),
            "yes" if kill.half_written else "no",
            "; ".join(kill.unreadable) or "whole",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Moments are even over the time that the steps left should take, from the loaded model on. "
        f"Made by `{how}` on "
        f"{os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()}, other work beside it), recipe "
        f"{recipe_hash(run.recipe)[:12]}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=Path("demo"), help="a file or a packaged one")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the runs")
    parser.add_argument("--attempts", type=int, default=20, help="kills")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no further kill after this time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--results", type=Path, help="page to put the section into")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    kills, compared = torment(
        options.recipe, options.out, attempts=options.attempts, minutes=options.minutes, seed=options.seed,
        overrides=options.set,
    )  # fmt: skip
    how = f"python benchmarks/kill.py --attempts {options.attempts} --seed {options.seed}"
    if options.minutes < math.inf:
        how += f" --minutes {options.minutes:g}"
    how += "".join(f" --set {change}" for change in options.set)
    text = section(options.recipe, options.out, kills, compared, how)
    print(text)
    if options.results:
        replace_section(options.results, "kills", text)
    if any(kill.unreadable for kill in kills) or not all(
        c.same_weights and c.same_rollouts for c in compared
    ):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
