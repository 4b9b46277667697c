"""A model in a process of its own as a sampler, so that several devices or cores answer at once."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from opengrit.core import errors
from opengrit.core.errors import OpenGritError, RunError
from opengrit.sampling import Asked, Listener, Sampled, SamplingSettings, Unsampled

_END_SECONDS = 10.0  # given to a process to end by itself

# What goes through the pipes is pickled by this module on both sides, in two processes of one user and one program.


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this one is, from 0."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"process {self.number + 1} of {self.count}"


class ProcessSampler:
    """Asks a model that lives in a process of its own. `frame` is the coordinate frame of its boxes."""

    def __init__(self, process: subprocess.Popen[bytes], place: Place) -> None:
        self._process, self._place = process, place
        self.frame = ""

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def begin(self, model: Mapping[str, Any]) -> None:
        """Tells the process which model to load, and does not wait."""
        self._ask((self._place, dict(model)))

    def ready(self) -> None:
        """Waits until the model is loaded. Raises what loading it raised, and RunError where the process died."""
        self.frame = self._receive()

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        """As the model's own sampler gives them. Raises RunError where the process died; nobody can listen."""
        if listener is not None:
            raise ValueError("a sampler in another process has no listener, got one; leave it out")
        self._ask((list(questions), samples_per_question, settings))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def _ask(self, value: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead process is noticed where its answer is read
            _send(self._process.stdin, value)

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            kind, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError, ValueError) as error:
            raise RunError(
                f"each process of an evaluation lives to its end, {self._place} {_ended(self._process)}; what was "
                "answered is kept: run the same command again to go on, with fewer processes where memory ran out"
            ) from error
        if kind == "answer":
            return value
        raise getattr(errors, kind)(value)


@contextmanager
def open_samplers(model: Mapping[str, Any], *, count: int) -> Iterator[list[ProcessSampler]]:
    """`count` samplers of one model, each loaded in its own process, which end with the block.

    `model` are the keys of a recipe's model section. Process i uses GPU i, counted round; on a CPU the cores are
    shared out. Raises what loading the model raises, and RunError where a process died.
    """
    with ExitStack() as stack:
        samplers = []
        for number in range(count):
            place = Place(number, count)
            sampler = ProcessSampler(_start(place), place)
            stack.callback(sampler.close)
            samplers.append(sampler)
        for sampler in samplers:
            sampler.begin(model)
        for sampler in samplers:
            sampler.ready()
        yield samplers


def _start(place: Place) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 1) // place.count))
    return subprocess.Popen(
        # -P: a file in the working folder must not stand in for a module of the same name.
        [sys.executable, "-P", "-m", "opengrit.evaluation.processes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"OMP_NUM_THREADS": threads, **os.environ},
    )


def _send(stream: IO[bytes], value: Any) -> None:
    pickle.dump(value, stream)
    stream.flush()


def _ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "sent what cannot be read"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def main() -> None:
    """What such a process does: loads the model that it is told, and answers until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted evaluation ends its processes itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    questions = sys.stdin.buffer
    try:
        place, model = pickle.load(questions)
        sampler, frame = _load(place, model)
        _send(answers, ("answer", frame))
        while True:
            asked, samples_per_question, settings = pickle.load(questions)
            found = sampler.sample(asked, samples_per_question=samples_per_question, settings=settings)
            _send(answers, ("answer", found))
    except (EOFError, BrokenPipeError):  # the evaluation has ended
        return
    except OpenGritError as error:
        _send(answers, (type(error).__name__, str(error)))


def _load(place: Place, model: Mapping[str, Any]) -> tuple[Any, str]:
    import torch

    from opengrit.core.output import settle_output
    from opengrit.models.loading import load_for_inference
    from opengrit.recipes.training_recipe import Model
    from opengrit.sampling.transformers_engine import TransformersSampler

    settle_output()
    devices = torch.cuda.device_count()
    device = f"cuda:{place.number % devices}" if devices else "cpu"
    loaded = load_for_inference(Model.model_validate(dict(model)), device=device)
    return TransformersSampler(loaded, vision_is_fixed=True), loaded.frame


if __name__ == "__main__":
    main()
