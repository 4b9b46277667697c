"""Buffers of keys and values of a running batch: prompts, and the columns that rows write; rows that leave are filled up."""

# U prompts, R rows, K key-value heads, P prompt tokens, T columns, E width of a head.
from __future__ import annotations

from collections.abc import Sequence

import torch

_ROOM = 32  # tokens; how much a buffer grows when it is full


def compacted(staying: Sequence[int]) -> list[int]:
    """The old place of each row that stays: the last ones move into the gaps, the others stay where they are."""
    count = len(staying)
    movers = [row for row in staying if row >= count]
    held = set(staying)
    order = list(range(count))
    for gap in (row for row in range(count) if row not in held):
        order[gap] = movers.pop()
    return order


class Prompts:
    """The keys and values of prompts in one layer, U x K x P x E."""

    keys: torch.Tensor
    values: torch.Tensor


class Columns:
    """The keys and values that rows have written in one layer, T x R x K x E, with columns and rows to spare.

    Column by column: a step writes one block, and what live rows have written lies close together.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def make_room(self, keys: torch.Tensor, values: torch.Tensor, *, rows: int, columns: int) -> None:
        """Hold at least `rows` rows, with heads as those given have (U x K x P x E); `columns` are in use."""
        if not columns:
            self.keys, self.values = (
                s.new_empty(_ROOM, rows, s.shape[1], s.shape[3]) for s in (keys, values)
            )
        elif rows > self.keys.shape[1]:
            rows = max(rows, self.keys.shape[1] * 3 // 2)
            self.keys, self.values = (_grown(s, rows=rows) for s in (self.keys, self.values))

    def make_columns(self, count: int, *, rows: int) -> None:
        """Hold at least `count` columns of the first `rows` rows; the other rows are given up where it must grow."""
        if count > len(self.keys):
            room = max(_ROOM, count // 2)
            self.keys, self.values = (
                _grown(s[:, :rows], columns=count + room) for s in (self.keys, self.values)
            )

    def write(
        self, key_RKE: torch.Tensor, value_RKE: torch.Tensor, *, first: int, column: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column; the keys and values (R x K x T x E) of the rows from column `first` on."""
        rows = len(key_RKE)
        self.keys[column, :rows] = key_RKE
        self.values[column, :rows] = value_RKE
        seen = slice(first, column + 1)
        return self.keys[seen, :rows].permute(1, 2, 0, 3), self.values[seen, :rows].permute(1, 2, 0, 3)

    def forget(self, *, first: int, column: int) -> None:
        """Move the columns from `first` to `column` to the front."""
        for states in (self.keys, self.values):
            states[: column - first] = states[first:column].clone()

    def move(self, movers: Sequence[tuple[int, int]], *, first: int, column: int) -> None:
        """Copy rows, given as (new place, old place), to places that are free."""
        for states in (self.keys, self.values):
            for new, old in movers:
                states[first:column, new] = states[first:column, old]


def _grown(states: torch.Tensor, *, rows: int | None = None, columns: int | None = None) -> torch.Tensor:
    """The states in the front of a larger buffer."""
    held_columns, held_rows, heads, width = states.shape
    grown = states.new_empty(columns or held_columns, rows or held_rows, heads, width)
    grown[:held_columns, :held_rows] = states
    return grown
