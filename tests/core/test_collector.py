"""The collector's pause: nothing inside, everything old afterwards, and what another has frozen stays so."""

from __future__ import annotations

import gc

from opengrit.core.collector import paused_collector


def young() -> int:
    return sum(len(gc.get_objects(generation)) for generation in (0, 1))


def test_what_was_made_in_a_pause_is_old_afterwards_and_is_still_collected_when_it_is_garbage() -> None:
    class Node:
        pass

    gc.collect()
    with paused_collector():
        assert not gc.isenabled()
        kept = [[i] for i in range(20_000)]
        cycle = Node()
        cycle.own = cycle  # type: ignore[attr-defined]
    assert gc.isenabled()
    assert young() < len(kept)
    del cycle
    gc.collect()
    assert not any(isinstance(made, Node) for made in gc.get_objects())


def test_a_pause_thaws_nothing_and_leaves_a_collector_off_that_was_off() -> None:
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with paused_collector():
            pass
        assert gc.get_freeze_count() >= frozen - 100  # counted references may go meanwhile
    finally:
        gc.unfreeze()
