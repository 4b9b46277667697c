"""An evaluation and serving beside vLLM on the same cores, with as many threads:

    python scripts/engines.py vllm      # makes .venv-vllm
    python benchmarks/beside_vllm.py --model tiny-qwen2.5-vl --results docs/results/cost.md

The same questions are answered in turns by `opengrit eval` in its own process, by vLLM's server and by `opengrit serve`; `opengrit eval
--endpoint` asks the servers, with many requests at a time and with one. Both servers run all the while and keep what they have seen,
prompts and pictures; a process starts cold. What the command that asks takes to start is measured each round, with one question a set.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from measuring import command_cost, spread
from opengrit.runs.folder import RunDir
from pages import replace_section
from servers import own_server, vllm_server

FRAMES = {"tiny-qwen2.5-vl": "qwen2_5_vl", "tiny-internvl3": "internvl"}
SETS = ("stickers/count", "stickers/spatial")
HERE, VLLM, SERVE = "in the process", "vLLM's server", "`opengrit serve`"
START = ("start", 1)  # one question a set, which `opengrit serve` answers
Asked = tuple[str, int]  # whom, and how many requests at a time (in the process: rows of a batch)


@dataclass
class Turns:
    """What a way took: seconds and the asking command's memory, turn by turn; and how many texts differ from those in the process."""

    questions: int
    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    others: int = 0

    def without(self, start: Turns | None) -> list[float]:
        """The seconds, less those of the start of the command that asks, round by round."""
        starts = [0.0] * len(self.seconds) if start is None else start.seconds
        return [whole - part for whole, part in zip(self.seconds, starts, strict=True)]


def ask(
    folder: Path, words: list[str], *, together: int, each: int, env: dict[str, str], turns: Turns
) -> dict[str, str]:
    """`opengrit eval` of the first `each` questions of both sets, added to the turns; the text of each question."""
    sets = [word for name in SETS for word in ("--data", name)]
    how = ["--limit", str(each), "--max-new-tokens", "160", "--batch-size", str(together), "--quiet"]
    command = [sys.executable, "-m", "opengrit", "eval", *words, *sets, *how, "--out", str(folder)]
    cost = command_cost(command, env=env)
    turns.seconds.append(cost.seconds)
    turns.mebibytes.append(cost.mebibytes)
    said = {record.id: record.completion.text for record in RunDir.open(folder).records()}
    if len(said) != turns.questions:
        raise SystemExit(
            f"{len(said)} of {turns.questions} questions were answered; ask fewer than a set has"
        )
    return said


def measure(options: argparse.Namespace, folder: Path) -> str:
    model = options.model
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    with (
        vllm_server(model, env=env, log=folder / "vllm.log") as by_vllm,
        own_server(model, env=env) as by_serve,
    ):
        servers = {VLLM: by_vllm, SERVE: by_serve}
        ways: list[Asked] = [(HERE, options.together)]
        ways += [(name, together) for together in (options.together, 1) for name in servers]
        ways.append(START)
        made: dict[Asked, Turns] = {}
        texts: dict[str, str] = {}
        for turn in range(options.rounds + 1):
            for way in ways:
                name, together = way
                each = 1 if way == START else options.alone if together == 1 else options.limit
                found = Turns(2 * each) if turn <= 1 else made[way]  # the first round warms up
                words = ["--model", model]
                if name != HERE:
                    server = servers[SERVE if way == START else name]
                    words += ["--endpoint", f"{server.url}/v1", "--frame", FRAMES[model]]
                said = ask(
                    folder / f"{turn}-{ways.index(way)}",
                    words,
                    together=together,
                    each=each,
                    env=env,
                    turns=found,
                )
                texts = texts or said
                found.others += sum(text != texts[key] for key, text in said.items())
                made[way] = found
                print(f"{name}, {together}: {found.seconds[-1]:.1f} s", file=sys.stderr, flush=True)
        memory = {name: server.mebibytes() for name, server in servers.items()}
    return section(options, made, memory=memory, started={n: s.started for n, s in servers.items()})


def section(
    options: argparse.Namespace,
    made: dict[Asked, Turns],
    *,
    memory: dict[str, float],
    started: dict[str, float],
) -> str:
    start = made.pop(START)

    def seconds(way: Asked) -> list[float]:
        return made[way].without(None if way[0] == HERE else start)

    rows = []
    for way, found in made.items():
        rate = found.questions / statistics.median(seconds(way))
        asked = f"{found.questions} | {', '.join(f'{s:.1f}' for s in found.seconds)} | {rate:.1f}"
        rows.append(
            f"| {way[0]} | {way[1]} | {asked} | {found.others} of {found.questions * len(found.seconds)} |"
        )

    def over(one: Asked, other: Asked) -> str:
        return spread([a / b for a, b in zip(seconds(one), seconds(other), strict=True)])

    def whole(one: Asked, other: Asked) -> str:
        pairs = zip(made[one].seconds, made[other].seconds, strict=True)
        return spread([a / b for a, b in pairs])

    many = options.together
    return "\n".join(
        [
            f"### Beside vLLM, {options.model}",
            "",
            f"The first questions of {' and '.join(SETS)}, greedy, at most 160 tokens, {options.threads} threads each, "
            f"{options.rounds} rounds in turns after one that warms up; seconds of whole commands. The command that asks a server "
            f"takes {spread(start.seconds)} s to start, which the questions a second of servers are without. vLLM's CPU build, 32 bits, eager. "
            "The servers keep prompts and pictures that they have seen; a process starts cold.",
            "",
            "| who answers | at a time | questions | seconds, turn by turn | questions a second | texts that differ |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Seconds of a whole command that asks vLLM's server over those in the process: {whole((VLLM, many), (HERE, many))}. Seconds of vLLM's "
            f"answers over those of `opengrit serve`: {over((VLLM, many), (SERVE, many))} with {many} requests at a time, "
            f"{over((VLLM, 1), (SERVE, 1))} with one.",
            "",
            f"A server's start: vLLM {started[VLLM]:.0f} s, `opengrit serve` {started[SERVE]:.0f} s. Memory after it all: vLLM "
            f"{memory[VLLM]:.0f} MiB (up to 1024 of them for keys and values), `opengrit serve` {memory[SERVE]:.0f} MiB; the evaluation "
            f"in the process {max(made[HERE, many].mebibytes):.0f} MiB at most.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=FRAMES, default="tiny-qwen2.5-vl")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int, default=240, help="questions of each set")
    parser.add_argument(
        "--alone", type=int, default=40, help="questions of each set that are asked one by one"
    )
    parser.add_argument("--together", type=int, default=32, help="questions at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="page to write the section into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(options, Path(folder))
    print(text)
    if options.results is not None:
        replace_section(options.results, f"beside vllm, {options.model}", text)


if __name__ == "__main__":
    main()
