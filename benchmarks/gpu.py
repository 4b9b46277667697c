"""Measures on one GPU what no CPU can tell, in at most ten minutes: `benchmarks/gpu.sh` prepares the machine and runs it.

Each part is a process with a share of the time that is left; a part that fails or runs out of time is named in the page,
and the others follow. The page grows line by line, so that whatever ends this leaves all that was measured. What a
part's libraries say goes to a log beside the page.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
PARTS_SCRIPT = ROOT / "benchmarks" / "gpu_parts.py"
_RESERVE = 5.0  # seconds for the page's end


@dataclass(frozen=True, slots=True)
class Part:
    """Shares are seconds, of ten minutes and of a rehearsal; what earlier parts leave over is divided in their proportions."""

    name: str
    title: str
    share: int
    rehearsal_share: int
    needs: str | None = None  # a package


PARTS = (
    Part("device", "Device and versions", 40, 35),
    Part("step", "One training step in the process", 150, 45),
    Part("decode", "Decoding against the memory's bandwidth", 80, 45),
    Part("memory", "Peak memory against the estimate", 160, 100),
    Part("attention", "bfloat16 and attention", 60, 45),
    Part("four-bit", "Loading in 4 bits", 50, 40, "bitsandbytes"),
    # Last, with what the others leave over: it starts vLLM twice.
    Part("colocate", "One training step with vLLM in the process", 120, 120, "vllm"),
)


class Page:
    """The Markdown file; every line is in it before the next is measured."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, *lines: str) -> None:
        text = "\n".join(lines)
        print(text, flush=True)
        self._file.write(text + "\n")
        self._file.flush()


class Ended(Exception):
    """A signal asked for the end."""


def run_part(
    part: Part, options: argparse.Namespace, page: Page, log: Path, *, seconds: float, scratch: str
) -> str:
    """What became of the part, after its lines are on the page."""
    python = colocate_python(options) if part.name == "colocate" else sys.executable
    if part.needs is not None and not has(python, part.needs, environment(options)):
        page.write(f"Not measured: {part.needs} is not installed.")
        return "not measured on this machine"
    command = [python, str(PARTS_SCRIPT), part.name, "--scratch", scratch, "--seconds", f"{seconds:.0f}"]
    if options.rehearse:
        command.append("--rehearse")
    if (folder := Path(scratch) / "vocabulary").is_dir():
        command += ["--vocabulary", str(folder)]
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n== {part.name}: {' '.join(command)}\n")
        out.flush()
        begin = out.tell()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            start_new_session=True,
            env=environment(options),
        )
        reader = threading.Thread(target=copy_lines, args=(process, page), daemon=True)
        reader.start()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
            reader.join(10)
    if code is None:
        return f"ran out of its {seconds:.0f} s"
    return "measured" if code == 0 else f"failed with {code}: {last_line(log, begin)}"


def has(python: str, package: str, env: dict[str, str]) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], env=env).returncode == 0


def sees_gpu(env: dict[str, str]) -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], env=env).returncode == 0


def copy_lines(process: subprocess.Popen, page: Page) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        page.write(line.rstrip("\n"))


def end_group(process: subprocess.Popen) -> None:
    """End the part with every process that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path, begin: int) -> str:
    """The last error that the log names from byte `begin` on; its last line where it names none."""
    text = log.read_bytes()[begin:].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|Exception)\b", line)]
    return (named or lines or ["it said nothing"])[-1][:300]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """The caller's, with the source tree's package first and nothing that asks a network."""
    paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    overlay = ROOT / ".engines" / "bitsandbytes"
    if (
        options.rehearse
        and (overlay / ".ready").is_file()
        and importlib.util.find_spec("bitsandbytes") is None
    ):
        paths.append(str(overlay))
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if options.rehearse:
        quiet |= {"VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    elif "CUDA_VISIBLE_DEVICES" not in os.environ:
        quiet["CUDA_VISIBLE_DEVICES"] = "0"
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def colocate_python(options: argparse.Namespace) -> str:
    """The Python that has vLLM: this one, or in a rehearsal the environment of `scripts/engines.py vllm`."""
    other = ROOT / ".venv-vllm" / "bin" / "python"
    if options.rehearse and importlib.util.find_spec("vllm") is None and other.with_name("vllm").exists():
        return str(other)
    return sys.executable


def opening(options: argparse.Namespace) -> list[str]:
    lines = [
        "# OpenGRIT on one GPU",
        "",
        f"`benchmarks/gpu.sh`, commit {commit()}, {time.strftime('%Y-%m-%d')}, {platform.node()}.",
    ]
    if options.rehearse:
        lines += [
            "",
            "**A rehearsal on a CPU with a small random-weight model: its figures say nothing but that every part runs.**",
        ]
    return lines


def real_vocabulary(options: argparse.Namespace, log: Path, scratch: str) -> str:
    """Builds a small model with the released models' tokenizer for a rehearsal, where `scripts/engines.py` has fetched it."""
    if not (ROOT / ".engines" / "vocabulary" / ".ready").is_file():
        return "Tokenizer: the packaged models', under 151,936 rows (`python scripts/engines.py vocabulary` fetches the real one)."
    build = "import pathlib, sys, real_vocabulary; real_vocabulary.build('2.5', pathlib.Path(sys.argv[1]))"
    env = environment(options)
    env["PYTHONPATH"] += os.pathsep + str(ROOT / "tests" / "support")
    with log.open("a", encoding="utf-8") as out:
        command = [sys.executable, "-c", build, str(Path(scratch) / "vocabulary")]
        subprocess.run(command, stdout=out, stderr=out, env=env, check=True)
    return "Tokenizer: the released models', with 151,936 rows."


def commit() -> str:
    try:
        asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def measure(options: argparse.Namespace, page: Page, log: Path, scratch: str) -> dict[str, str]:
    """What became of each part, by its name."""
    ends = options.began + options.seconds - _RESERVE
    states = {part.name: "not begun" for part in options.parts}
    page.write(*opening(options))
    try:
        if options.rehearse:
            page.write("", real_vocabulary(options, log, scratch))
        for place, part in enumerate(options.parts):
            left = ends - time.time()
            shares = [p.rehearsal_share if options.rehearse else p.share for p in options.parts[place:]]
            seconds = left * shares[0] / sum(shares)
            page.write("", f"## {part.title}", "")
            if seconds < 1:
                states[part.name] = "not begun, no time left"
            else:
                began = time.time()
                states[part.name] = "not finished"
                states[part.name] = run_part(part, options, page, log, seconds=seconds, scratch=scratch)
                states[part.name] += f" ({time.time() - began:.0f} of {seconds:.0f} s)"
            page.write("", f"{part.name}: {states[part.name]}.")
    except Ended as error:
        page.write("", f"Ended: {error}.")
    page.write("", "## What became of each part", "", "| part | |", "|---|---|")
    page.write(*(f"| {name} | {state.replace('|', '/')} |" for name, state in states.items()))
    return states


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="every part on the CPU, with small shapes")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu.md"), help="the page; its log goes beside it"
    )
    parser.add_argument("--seconds", type=float, default=570, help="for everything, from --began on")
    parser.add_argument(
        "--began", type=float, default=time.time(), help="when the clock started, as `date +%%s` says"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=[part.name for part in PARTS], help="these parts"
    )
    options = parser.parse_args()
    options.parts = [part for part in PARTS if options.only is None or part.name in options.only]
    return options


def main() -> int:
    options = arguments()
    if not options.rehearse and not sees_gpu(environment(options)):
        print(
            f"a GPU is measured, torch of {sys.executable} sees none; on a CPU use --rehearse",
            file=sys.stderr,
        )
        return 2
    page, log = Page(options.out), options.out.with_suffix(".log")
    log.write_text("")

    def end(number: int, _: object) -> None:
        raise Ended(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="opengrit-gpu-") as scratch:
        states = measure(options, page, log, scratch)
    return 0 if all(state.startswith(("measured", "not measured")) for state in states.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
