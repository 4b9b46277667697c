"""Key-value buffers of a running batch: the prompts', and the slots that rows write, token by token."""

# U prompts, R rows, K key-value heads, P prompt tokens, T slots (one sampled token of each row), E width of a head.
from __future__ import annotations

from collections.abc import Sequence

import torch

_SPARE_SLOTS = 64  # how much a buffer grows at least when it is full


def compacted(staying: Sequence[int]) -> list[int]:
    """The old place of each row that stays: the last ones move into the gaps, the others stay where they are."""
    count = len(staying)
    movers = [row for row in staying if row >= count]
    held = set(staying)
    order = list(range(count))
    for gap in (row for row in range(count) if row not in held):
        order[gap] = movers.pop()
    return order


class PromptBuffer:
    """The keys and values of prompts in one layer, U x K x P x E."""

    keys: torch.Tensor
    values: torch.Tensor


class RowBuffer:
    """The keys and values that rows have written in one layer, T x R x K x E, with slots and rows to spare.

    Slots come first: a step writes one block, and what live rows have written lies close together.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def reserve_rows(self, keys: torch.Tensor, values: torch.Tensor, *, rows: int, slots: int) -> None:
        """Hold at least `rows` rows, with heads as those given have (U x K x P x E); `slots` are in use."""
        if not slots:
            self.keys, self.values = (
                s.new_empty(_SPARE_SLOTS, rows, s.shape[1], s.shape[3]) for s in (keys, values)
            )
        elif rows > self.keys.shape[1]:
            rows = max(rows, self.keys.shape[1] * 3 // 2)
            self.keys, self.values = (_grown(s, rows=rows) for s in (self.keys, self.values))

    def reserve_slots(self, count: int, *, rows: int) -> None:
        """Hold at least `count` slots of the first `rows` rows; a buffer that grows drops the other rows."""
        if count > len(self.keys):
            slots = count + max(_SPARE_SLOTS, count // 2)
            self.keys, self.values = (_grown(s[:, :rows], slots=slots) for s in (self.keys, self.values))

    def write(
        self, key_RKE: torch.Tensor, value_RKE: torch.Tensor, *, first: int, slot: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one slot; return the keys and values (R x K x T x E) of the rows from slot `first` on."""
        rows = len(key_RKE)
        self.keys[slot, :rows] = key_RKE
        self.values[slot, :rows] = value_RKE
        seen = slice(first, slot + 1)
        return self.keys[seen, :rows].permute(1, 2, 0, 3), self.values[seen, :rows].permute(1, 2, 0, 3)

    def shift(self, *, first: int, slot: int) -> None:
        """Move the slots from `first` up to `slot` to the front."""
        for states in (self.keys, self.values):
            states[: slot - first] = states[first:slot].clone()

    def move_rows(self, movers: Sequence[tuple[int, int]], *, first: int, slot: int) -> None:
        """Copy rows, given as (new place, old place), to places that are free."""
        for states in (self.keys, self.values):
            for new, old in movers:
                states[first:slot, new] = states[first:slot, old]


def _grown(states: torch.Tensor, *, rows: int | None = None, slots: int | None = None) -> torch.Tensor:
    """The states at the front of a larger buffer."""
    held_slots, held_rows, heads, width = states.shape
    grown = states.new_empty(slots or held_slots, rows or held_rows, heads, width)
    grown[:held_slots, :held_rows] = states
    return grown
