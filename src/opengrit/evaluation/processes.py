"""A model in a process of its own as a sampler, so that several devices or cores answer at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from opengrit.core.errors import OpenGritError, RunError
from opengrit.sampling import Asked, Listener, Sampled, SamplingSettings, Unsampled

_SPAWN = multiprocessing.get_context("spawn")  # CUDA and the threads of a library do not survive a fork
_END_SECONDS = 10.0  # given to a process to end by itself


class ProcessSampler:
    """Asks a model in a process of its own, which begins to load it at once. Use it once it is `ready`."""

    frame: str  # the coordinate frame of its boxes

    def __init__(self, model: Mapping[str, Any], *, number: int, count: int) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_answer,
            args=(theirs, dict(model), number),
            name=f"process {number + 1} of {count}",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

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
            raise ValueError("a sampler in another process takes no listener, got one; leave it out")
        with suppress(BrokenPipeError):  # a dead process is noticed where its answer is read
            self._pipe.send((list(questions), samples_per_question, settings))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(_END_SECONDS)
            code = self._process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise RunError(
                f"no process of an evaluation may die, {self._process.name} {how}; its answers are kept: run the same "
                "command again to resume, with fewer processes if memory ran out"
            ) from error
        if isinstance(answer, OpenGritError):
            raise answer
        return answer


@contextmanager
def open_samplers(model: Mapping[str, Any], *, count: int) -> Iterator[list[ProcessSampler]]:
    """`count` samplers of one model, each loaded in its own process, which end with the block.

    `model` are the keys of a recipe's model section. Process i uses GPU i, counted round; on a CPU the cores are
    shared out. A script that calls this does its own work under `if __name__ == "__main__":`, as multiprocessing asks.
    Raises what loading the model raises, and RunError where a process died.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    samplers: list[ProcessSampler] = []
    with ExitStack() as stack:
        # Safe path: a file in the working folder must not stand in for a module of the same name.
        with _environment(OMP_NUM_THREADS=threads, PYTHONSAFEPATH="1"):
            for number in range(count):
                samplers.append(ProcessSampler(model, number=number, count=count))
                stack.callback(samplers[-1].close)
        for sampler in samplers:
            sampler.ready()
        yield samplers


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that processes started within the block inherit."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _answer(pipe: Connection, model: dict[str, Any], number: int) -> None:
    """What such a process does: load the model, send its frame, and answer until the evaluation has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted evaluation ends its processes itself
    os.dup2(2, 1)  # what a library prints is no result of the command
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the evaluation has ended
        try:
            sampler, frame = _load(model, number)
            pipe.send(frame)
            while True:
                asked, samples_per_question, settings = pipe.recv()
                pipe.send(sampler.sample(asked, samples_per_question=samples_per_question, settings=settings))
        except OpenGritError as error:
            pipe.send(error)


def _load(model: dict[str, Any], number: int) -> tuple[Any, str]:
    import torch

    from opengrit.core.output import settle_output
    from opengrit.models.loading import load_for_inference
    from opengrit.recipes.model_section import Model
    from opengrit.sampling.transformers_engine import TransformersSampler

    settle_output()
    devices = torch.cuda.device_count()
    device = f"cuda:{number % devices}" if devices else "cpu"
    loaded = load_for_inference(Model.model_validate(model), device=device)
    return TransformersSampler(loaded, vision_is_fixed=True), loaded.frame
