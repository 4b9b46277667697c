"""How long `opengrit report` takes over many records, and how much memory: `python benchmarks/report_speed.py --out FOLDER`.

Writes two evaluations of random answers to random rows (before and after), then makes their report as the command does,
with its table on the terminal, in a process of its own, several times. `--against SRC` does the same with another source
tree, in turn with this one, and gives the ratio of each pair. Pictures are missing, as on a machine that was given the run
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
MEASURE = """
import json, resource, sys, time
began = time.process_time()
from pathlib import Path
from opengrit.cli.report import report
report([Path(run) for run in sys.argv[2:]], out=Path(sys.argv[1]))
seconds = time.process_time() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
WORDS = [
    "dog",
    "cat",
    "ball",
    "cup",
    "tree",
    "left",
    "right",
    "near",
    "over",
    "table",
    "car",
    "bird",
    "red",
    "blue",
    "small",
]


def write_run(folder: Path, *, rows: int, seed: int, skill: float) -> None:
    """An evaluation of `rows` answers, a share `skill` of them right with boxes near the annotated ones."""
    from opengrit.core.boxes import Box, Size
    from opengrit.core.types import Completion, Example, Finish, Record, Score, Verdict
    from opengrit.grounding.frames import frame_for
    from opengrit.grounding.parsing import parse
    from opengrit.runs.folder import RunDir

    truth, dice = random.Random(0), random.Random(seed)
    size = Size(640, 480)
    frame = frame_for("pixels", size)
    run = RunDir.create(folder, recipe="evaluate: {model: {name: random}, strategy: grounded}\n")
    with run.append_records() as writer:
        for number in range(rows):
            left, top = truth.randrange(0, 400), truth.randrange(0, 300)
            box = (left, top, left + truth.randrange(20, 200), top + truth.randrange(20, 150))
            counts = number % 2 == 0
            answer = str(truth.randrange(1, 6)) if counts else truth.choice(("yes", "no"))
            example = Example(
                id=f"r{number}",
                question=f"How many {truth.choice(WORDS)}s are there?"
                if counts
                else f"Is the {truth.choice(WORDS)} red?",
                answer=answer,
                image=f"pictures/{number}.png",
                dataset="tallyqa" if counts else "vsr",
                picture_size=size,
                boxes=(Box.from_pixels(*box, size=size),),
            )
            right = dice.random() < skill
            shift = dice.randrange(0, 10 if right else 120)
            thought = " ".join(dice.choice(WORDS) for _ in range(40))
            written = [box[0] + shift, box[1] + shift, box[2] + shift, box[3] + shift]
            text = f"<think>{thought} {written}</think><rethink>{thought}</rethink><answer>{answer if right else 'none'}</answer>"
            transcript = parse(text, frame)
            record = Record(
                id=f"{example.id}#0",
                example=example,
                strategy="grounded",
                sample=0,
                completion=Completion(text, tuple(dice.randrange(1000) for _ in range(120)), Finish.STOP),
                transcript=replace(transcript, finish=Finish.STOP),
                verdict=Verdict(right, float(right)),
                score=Score(float(right), {"correct": float(right), "tag_pairs": 1.0}),
                seen_size=size,
                frame="pixels",
            )
            writer.write_record(record)


def measure(source: Path, page: Path, runs: list[Path]) -> tuple[float, float, int]:
    """Seconds of the processor, the largest memory in MiB, and bytes of the page, of one report."""
    command = [sys.executable, "-c", MEASURE, str(page), *map(str, runs)]
    env = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    seconds, mebibytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, mebibytes, page.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the pages")
    parser.add_argument("--rows", type=int, default=50_000, help="records of the run (default: 50,000)")
    parser.add_argument("--runs", type=int, default=1, choices=(1, 2), help="1: one run; 2: before and after")
    parser.add_argument("--repeats", type=int, default=3, help="reports of each source tree")
    parser.add_argument("--against", type=Path, help="another src folder, measured in turn with this one")
    args = parser.parse_args()
    sys.path.insert(0, str(SRC))
    runs = [args.out / f"run-{args.rows}-{place}" for place in range(args.runs)]
    for place, folder in enumerate(runs):
        if not folder.exists():
            write_run(folder, rows=args.rows, seed=place + 1, skill=0.4 + 0.2 * place)
    trees = {"this": SRC} | ({"other": args.against.resolve()} if args.against else {})
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in trees}
    for repeat in range(args.repeats):
        for name, source in trees.items():
            found[name].append(measure(source, args.out / f"{name}.html", runs))
            seconds, mebibytes, size = found[name][-1]
            print(
                f"{repeat + 1} {name}: {seconds:.1f} s, {mebibytes:.0f} MiB, page {size / 1e6:.1f} MB",
                flush=True,
            )
    if args.against:
        ratios = [o[0] / t[0] for o, t in zip(found["other"], found["this"], strict=True)]
        memory = [o[1] / t[1] for o, t in zip(found["other"], found["this"], strict=True)]
        print(
            f"times as fast, median of {len(ratios)} pairs: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
        print(f"times the memory, median: {statistics.median(memory):.2f}")


if __name__ == "__main__":
    main()
