"""What the parts of `benchmarks/gpu.sh` share: how much is measured, the device's memory, models and random completions."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

import step
from opengrit.core.types import Completion, Finish
from opengrit.data import load_examples
from opengrit.grounding.prompts import user_text
from opengrit.models.families import Loaded
from opengrit.sampling import Asked, Sampled
from opengrit.sampling.transformers_engine import TransformersSampler
from shapes import build

ROOT = Path(__file__).resolve().parents[1]
# The recipes' models, and which shape of a `Scale` stands for each.
FAMILIES = {"Qwen/Qwen2.5-VL-3B-Instruct": "qwen", "OpenGVLab/InternVL3-2B-hf": "internvl"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    qwen: str  # shapes of `shapes.py`
    internvl: str
    step: dict[str, int]  # questions, completions each, their length, passes and steps of a turn
    rounds: int
    drawn: tuple[tuple[int, int], ...]  # questions and completions of each that are decoded together
    lengths: tuple[int, int]  # tokens: the difference of their seconds leaves the prompts out
    longest: int | None  # tokens of a completion in a recipe's training; None: the recipe's own
    generated: int  # tokens of a completion where the peak of generating is measured
    written_rows: int | None  # completions that are generated together; None: as many as the recipe's
    rows: int  # completions and their tokens that log-probabilities are compared on
    tokens: int
    copied: int  # bytes


GPU = Scale(
    qwen="qwen2.5-vl-3b", internvl="internvl3-2b",
    step={"questions": 20, "group": 8, "length": 60, "passes": 4, "steps": 1}, rounds=3,
    drawn=((1, 1), (8, 8), (20, 8)), lengths=(16, 80), longest=None, generated=200, written_rows=None, rows=4, tokens=256,
    copied=2**32,
)  # fmt: skip
REHEARSAL = Scale(
    qwen="small-qwen2.5-vl", internvl="small-internvl3",
    step={"questions": 2, "group": 2, "length": 6, "passes": 1, "steps": 1}, rounds=1,
    drawn=((1, 1), (2, 2)), lengths=(4, 12), longest=12, generated=4, written_rows=8, rows=2, tokens=8, copied=2**26,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A part's surroundings: how much to measure, where files may lie, and when its time is up (monotonic seconds)."""

    scale: Scale
    scratch: Path
    deadline: float

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()


_page: TextIO = sys.stdout


def keep_stdout_for_page() -> None:
    """From now on only `say` writes to standard output; what libraries print goes to standard error."""
    global _page
    _page = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def say(*lines: str) -> None:
    """Lines of the page, at once: whatever ends this process, they are written."""
    print(*lines, sep="\n", file=_page, flush=True)


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def reset_peak() -> None:
    """Let go of what nothing uses any more, and measure the peak from here on."""
    gc.collect()  # trainers refer to themselves
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins again


def peak() -> int:
    """Bytes of the device since `reset_peak`: what torch's allocator held, and the context; on a CPU the whole process's."""
    if not torch.cuda.is_available():
        return round(step.peak_of_process() * 2**20)
    free, whole = torch.cuda.mem_get_info()
    beside = whole - free - torch.cuda.memory_reserved()
    return torch.cuda.max_memory_reserved() + max(0, beside)


def device_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"


def questions_of(loaded: Loaded, count: int) -> list[Asked]:
    rows = load_examples("stickers/train20")[:count]
    return [Asked(e.id, e.image, user_text("grounded", e.question, family=loaded.frame)) for e in rows]


def saved(setting: Setting) -> Path:
    """The folder of a checkpoint of the Qwen shape, written once for all parts."""
    folder = setting.scratch / "model"
    if not (folder / "config.json").exists():
        # A CPU's vLLM takes new weights in float16 only.
        made = build(setting.scale.qwen, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float16)
        unfinished = folder.with_name("unfinished")
        made.model.save_pretrained(unfinished)
        made.processor.save_pretrained(unfinished)
        unfinished.rename(folder)
    return folder


class Canned:
    """A sampler that writes tokens at random in no time, `length` of each completion."""

    def __init__(self, loaded: Loaded, length: int) -> None:
        self.prompts, self.length = TransformersSampler(loaded), length
        silent = {*loaded.forbidden_ids, *loaded.end_ids}
        self.allowed = [i for i in range(len(loaded.processor.tokenizer)) if i not in silent]
        self.drawn = torch.Generator().manual_seed(0)

    def sample(
        self, questions: Any, *, samples_per_question: int, settings: Any, listener: Any = None
    ) -> Any:
        return [[self.one(question) for _ in range(samples_per_question)] for question in questions]

    def one(self, question: Asked) -> Sampled:
        prompt = self.prompts.prepare(question)
        places = torch.randint(len(self.allowed), (self.length,), generator=self.drawn).tolist()
        ids = tuple(self.allowed[place] for place in places)
        return Sampled(Completion("no answer", ids, Finish.LENGTH), prompt.ids, prompt.picture.seen_size)
