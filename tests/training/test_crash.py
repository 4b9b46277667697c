"""A training that is killed anywhere, again and again, ends where one ends that was not: the same weights, the same records."""

from __future__ import annotations

import json
import random
import signal
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from forked import Running, command, wait_for
from moments import PHASES, RENAMES, At, Measure, Moment, at, kill, terminate
from small_runs import check_equal, check_readable, resuming, small_recipe

from opengrit.runs.folder import RunDir

KILLS, KILLS_OF_TWO = 20, 5


def draw(rng: random.Random, place: str, lengths: dict[str, list[int]]) -> Moment:
    """A moment in a place, in one of its first two calls: a resumed run may make no more."""
    calls = lengths[place]
    entry = rng.randrange(min(2, len(calls)))
    return Moment(place, entry, rng.randint(0, calls[entry]))


@pytest.mark.slow
@pytest.mark.parametrize("cycle", [1, 2], ids=["one step a generation", "two steps a generation"])
def test_twenty_kills_change_no_bit_of_the_weights_and_lose_no_record(cycle: int, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, num_iterations=cycle, keep_checkpoints=None if cycle == 1 else 2)
    whole = tmp_path / "whole"
    measuring = command("train", recipe, "--out", whole, "--quiet", before=Measure(tmp_path / "lengths"))
    assert measuring.code() == 0, measuring.said
    lengths = json.loads((tmp_path / "lengths").read_text()) | {"restoring": [200]}

    rng = random.Random(20 + cycle)
    places = [*PHASES, *RENAMES]
    rng.shuffle(places)
    waiting = deque(places[: KILLS // 2] if cycle == 1 else places[-KILLS // 2 :])
    runs = [tmp_path / "run-1"]
    for _ in range(3 * KILLS):
        out = runs[-1]
        if waiting and waiting[0] == "restoring" and not list(out.glob("checkpoints/step-*")):
            waiting.rotate(-1)
        if not waiting:
            break
        moment = draw(rng, waiting[0], lengths)
        running = command("train", recipe, "--out", out, "--quiet", *resuming(out), before=at(moment, kill))
        if running.code() == 0:  # the moment did not come
            check_equal(out, whole)
            runs.append(tmp_path / f"run-{len(runs) + 1}")
            waiting.rotate(-1)
        else:
            assert running.code() == -signal.SIGKILL, running.said
            waiting.popleft()
            check_readable(out)
    assert not waiting
    last = command("train", recipe, "--out", runs[-1], "--quiet", *resuming(runs[-1]))
    assert last.code() == 0, last.said
    check_equal(runs[-1], whole)


def two(recipe: Path, out: Path, *, dying: At | None = None, rank: int = 0) -> list[Running]:
    """Two processes that train together, the one of that rank to die at a moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        command(
            "train", recipe, "--out", out, "--quiet", *resuming(out),
            before=dying if own == rank else None,
            environment={
                "RANK": str(own), "LOCAL_RANK": str(own), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
            },
        )
        for own in range(2)
    ]  # fmt: skip


def end(processes: Sequence[Running]) -> list[int]:
    """The exit codes; where one process died the other is ended, as a launcher does."""
    wait_for(lambda: not all(p.process.is_alive() for p in processes))
    if any(p.process.exitcode not in (None, 0) for p in processes):
        for process in processes:
            process.process.kill()
    return [process.code() for process in processes]


@pytest.mark.slow
def test_five_kills_of_one_of_two_processes_change_no_bit_of_the_weights(tmp_path: Path) -> None:
    recipe, whole = small_recipe(tmp_path), tmp_path / "whole"
    undisturbed = two(recipe, whole)
    assert end(undisturbed) == [0, 0], [process.said for process in undisturbed]
    out, killed = tmp_path / "run", 0
    moments = [
        (0, Moment("generation", 1, 500)),
        (1, Moment("loss", 2, 100)),
        (0, Moment("before rename", 0)),
        (1, Moment("checkpoint write", 0, 50)),
        (0, Moment("evaluation", 0, 300)),
    ]
    assert len(moments) == KILLS_OF_TWO
    for rank, moment in moments:
        processes = two(recipe, out, dying=at(moment, kill), rank=rank)
        assert end(processes)[rank] == -signal.SIGKILL, [process.said for process in processes]
        killed += 1
        check_readable(out)
    processes = two(recipe, out)
    assert end(processes) == [0, 0], [process.said for process in processes]
    check_equal(out, whole)
    assert killed == KILLS_OF_TWO


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_with_a_checkpoint(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, save_steps=None, eval_steps=None)
    processes = two(recipe, tmp_path / "run", dying=at(Moment("loss", 1, 10), terminate), rank=1)
    assert [process.code() for process in processes] == [143, 143], [process.said for process in processes]
    assert [path.name for path in RunDir.open(tmp_path / "run").checkpoints()] == ["step-000002"]
    check_readable(tmp_path / "run")
    assert sum(process.said.count("stopped by SIGTERM") for process in processes) == 1
