"""Where a training's time goes: seconds of each part of the steps, in metrics.jsonl step by step and in one line at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum


class Part(Enum):
    """A part of a step; what belongs to none is "other" (the optimizer, the data loader, other processes)."""

    PREPARE = "prepare"  # of fine-tuning by example: prompts, pictures and replies become a batch
    DRAW = "draw"  # completions are sampled and parsed
    JUDGE = "judge"  # waiting for verdicts that are not there when the reference is done
    REFERENCE = "reference"  # log-probabilities by the reference model, or by the policy before the step
    LOSS = "loss"  # log-probabilities by the policy, and their gradient
    EVALUATE = "evaluate"  # evaluations during training
    WRITE = "write"  # records and checkpoints


_OTHER = "other"
OF_REINFORCEMENT = (Part.DRAW, Part.JUDGE, Part.REFERENCE, Part.LOSS, Part.EVALUATE, Part.WRITE)
OF_EXAMPLES = (Part.PREPARE, Part.LOSS, Part.WRITE)


class StepTimes:
    """Adds up seconds by part. A part within another is taken out of it, so that the parts and the rest make the whole."""

    def __init__(
        self, parts: Sequence[Part] = OF_REINFORCEMENT, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._parts = tuple(parts)
        self._clock = clock
        self._open: list[list[float]] = []  # of each part that runs, the seconds of parts inside
        self._now: defaultdict[str, float] = defaultdict(float)  # since the last row
        self._tokens = self._all_tokens = 0
        self._all: defaultdict[str, float] = defaultdict(float)
        self._since: float | None = None  # the last row; None before the first step

    def start(self) -> None:
        """Count from here: the first step begins."""
        self._since = self._clock()

    @contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """The block belongs to the part."""
        inside: list[float] = []
        self._open.append(inside)
        began = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - began
            self._open.pop()
            self._now[part.value] += seconds - sum(inside)
            if self._open:
                self._open[-1].append(seconds)

    def add_tokens(self, count: int) -> None:
        """Tokens that this process sampled, or read in fine-tuning by example."""
        self._tokens += count

    def row(self) -> dict[str, float]:
        """Seconds by part since the last row, as "seconds/draw" and so on, and the tokens a second of it."""
        now = self._clock()
        whole = now - (now if self._since is None else self._since)
        self._since = now
        seconds = {part.value: self._now[part.value] for part in self._parts}
        seconds[_OTHER] = max(0.0, whole - sum(seconds.values()))
        for name, value in seconds.items():
            self._all[name] += value
        self._all_tokens += self._tokens
        row = {f"seconds/{name}": value for name, value in seconds.items()}
        row["tokens_per_second"] = self._tokens / whole if whole else 0.0
        self._now.clear()
        self._tokens = 0
        return row

    def summary(self) -> str:
        """One line on all rows: the whole, each part's share, tokens a second, and the share spent waiting."""
        return _summary(self._all, tokens=self._all_tokens)


def _summary(seconds: Mapping[str, float], *, tokens: int) -> str:
    """The line on seconds by part, of a training whose parts they are; "" where no time has passed."""
    whole = sum(seconds.values())
    if whole <= 0:
        return ""
    shares = sorted(seconds.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {value / whole:.0%}" for name, value in shares if value / whole >= 0.005)
    by_example = Part.PREPARE.value in seconds
    done, awaited = ("read", "data") if by_example else ("sampled", "the judge")
    waiting = seconds[(Part.PREPARE if by_example else Part.JUDGE).value] / whole
    return (
        f"{whole:.0f} s: {shown}; {tokens / whole:.0f} {done} tokens a second, {waiting:.0%} of the time spent waiting for "
        f"{awaited}"
    )
