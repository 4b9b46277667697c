"""An evaluation and serving beside vLLM on the same cores, with as many threads:

    python scripts/engines.py vllm      # makes .venv-vllm
    python benchmarks/beside_vllm.py --model tiny-qwen2.5-vl --results docs/results/cost.md

The same questions are asked in turns in the process of `opengrit eval`, of vLLM's own server and of `opengrit serve`, the servers by
`opengrit eval --endpoint`, with many requests at a time and with one. Both servers run all the while, and each waits while others
answer. A server's start is not in a turn's seconds; the start of the command that asks is.
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
Asked = tuple[str, int]  # whom, and how many requests at a time (in the process: rows of a batch)


@dataclass
class Turns:
    """What a way took: seconds and the asking command's memory, turn by turn, and texts that were other than in the process."""

    questions: int
    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    others: int = 0

    @property
    def per_second(self) -> float:
        return self.questions / statistics.median(self.seconds)


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
    return {record.id: record.completion.text for record in RunDir.open(folder).records()}


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
        made: dict[Asked, Turns] = {}
        texts: dict[str, str] = {}
        for turn in range(options.rounds + 1):
            for way in ways:
                name, together = way
                each = options.alone if together == 1 else options.limit
                found = Turns(2 * each) if turn <= 1 else made[way]  # the first round warms up
                words = ["--model", model]
                if name in servers:
                    words += ["--endpoint", f"{servers[name].url}/v1", "--frame", FRAMES[model]]
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
    rows = [
        f"| {name} | {together} | {found.questions} | {', '.join(f'{s:.1f}' for s in found.seconds)} | {found.per_second:.1f} | "
        f"{found.others} of {found.questions * len(found.seconds)} |"
        for (name, together), found in made.items()
    ]

    def over(whom: str, other: str, together: int) -> str:
        pairs = zip(made[whom, together].seconds, made[other, together].seconds, strict=True)
        return spread([a / b for a, b in pairs])

    many = options.together
    return "\n".join(
        [
            f"### Beside vLLM, {options.model}",
            "",
            f"The first questions of {' and '.join(SETS)}, greedy, at most 160 tokens, {options.threads} threads each, "
            f"{options.rounds} rounds in turns after one that warms up; seconds of whole commands. vLLM's CPU build, 32 bits, eager.",
            "",
            "| who answers | at a time | questions | seconds, turn by turn | questions a second | other texts |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Seconds of vLLM's server over those in the process: {over(VLLM, HERE, many)}; over those of `opengrit serve`: "
            f"{over(VLLM, SERVE, many)} with {many} requests at a time, {over(VLLM, SERVE, 1)} with one.",
            "",
            f"A server's start: vLLM {started[VLLM]:.0f} s, `opengrit serve` {started[SERVE]:.0f} s. Memory after it all: vLLM "
            f"{memory[VLLM]:.0f} MiB (1024 of them set aside for keys and values), `opengrit serve` {memory[SERVE]:.0f} MiB; the evaluation "
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
        "--alone", type=int, default=20, help="questions of each set that are asked one by one"
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
