"""What a running batch remembers, and one more token for each of its rows: prompts are held once, completions by row."""

# U prompts, R rows, H heads, K key-value heads, N = H / K heads to a key-value head, M rows of the largest group,
# P prompt tokens, T completion tokens held, V vocabulary, E width of a head, A position axes.
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from transformers import DynamicCache

from opengrit.sampling.kv_buffers import Columns, Prompts, compacted
from opengrit.sampling.model_inputs import widen

_log = logging.getLogger(__name__)

# Decoder layers of the plain shape `x + attention(norm(x))`, `x + mlp(norm(x))`, with rotary positions by halves.
_PLAIN_LAYERS = (
    "Qwen2VLDecoderLayer",
    "Qwen2_5_VLDecoderLayer",
    "Qwen3VLTextDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "LlamaDecoderLayer",
)


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Prompts read by the model: keys and values, the mask over them, and what comes next for each prompt."""

    cache: DynamicCache
    mask_UP: torch.Tensor
    next_position_U: torch.Tensor
    last_logits_UV: torch.Tensor


class Memory(Protocol):
    """The keys and values of the rows of a running batch. Rows are numbered from 0 in the order they joined."""

    def join(self, prefix: Prefix, *, samples: int) -> None:
        """Add `samples` rows for each prompt, behind the rows there are, those of a prompt together."""
        ...

    def keep(self, order: Sequence[int]) -> None:
        """Go on with these rows only; `order[r]` is the old place of the new row r.

        A row stays where it is or moves down into the place of a row that leaves.
        """
        ...

    def read(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        """The logits (R x V) after one more token in every row."""
        ...


def memory_for(base: Any, *, axes: int, told: set[str]) -> Memory:
    """A shared memory where the model's layers are of a shape we know, else copies; the reason is logged if not in `told`."""
    obstacle = _obstacle(base)
    if obstacle is None:
        return SharedMemory(base, axes=axes)
    if obstacle not in told:
        told.add(obstacle)
        _log.info("prompts are copied for every completion while decoding, not shared: %s", obstacle)
    return CopiedMemory(base, axes=axes)


def _obstacle(base: Any) -> str | None:
    """Why a model cannot decode over shared prompts, or None."""
    text = base.model.language_model
    for layer in text.layers:
        name = type(layer).__name__
        if name not in _PLAIN_LAYERS:
            return f"{name} is not known"
        if layer._forward_pre_hooks or layer._forward_hooks:
            return f"{name} has hooks, which only its own forward calls"
        if getattr(layer.self_attn, "sliding_window", None) is not None:
            return f"{name} looks back through a window"
    return None


class SharedMemory:
    """Keys and values of each prompt once, and of each row what it has written. Reads with the model's own modules.

    A row's attention weighs its prompt and its own tokens in one softmax: exact, in any batch. The rows of a prompt
    read the prompt's keys and values together, so a step costs the weights once, each prompt once and each row's own
    tokens. Rows write at one common column; a row that joined late sees nothing in front of its own first column.
    """

    def __init__(self, base: Any, *, axes: int) -> None:
        self._text = base.model.language_model
        self._head = base.get_output_embeddings()
        self._axes = axes
        layers = range(len(self._text.layers))
        self._prefix = [Prompts() for _ in layers]
        self._own = [Columns() for _ in layers]
        self._mask_UP = torch.empty(0, 0, dtype=torch.bool)
        self._groups: list[int] = []  # the prompt of each row
        self._starts: list[int] = []  # the first column of each row
        self._column = 0  # where the next token is written
        self._arranged = False

    def join(self, prefix: Prefix, *, samples: int) -> None:
        mask_UP = prefix.mask_UP.bool()
        hidden = None if bool(mask_UP.all()) else ~mask_UP[:, None, :, None]
        fresh = [
            (_visible(layer.keys, hidden), _visible(layer.values, hidden))
            for layer in cast(Any, prefix.cache.layers)
        ]
        self._forget_columns()
        self._add_prompts(mask_UP, fresh)
        first = len(self._mask_UP) - len(mask_UP)
        before = len(self._groups)
        self._groups += [first + prompt for prompt in range(len(mask_UP)) for _ in range(samples)]
        self._starts += [self._column] * (len(self._groups) - before)
        for own, (keys, values) in zip(self._own, fresh, strict=True):
            own.make_room(keys, values, rows=len(self._groups), columns=self._column)
            # Weighed by 0, but what nobody has written might be no number.
            own.keys[: self._column, before : len(self._groups)] = 0
            own.values[: self._column, before : len(self._groups)] = 0
        self._arranged = False

    def _forget_columns(self) -> None:
        """Move everything to the left where half the columns or more are of rows that have left."""
        first = min(self._starts, default=0)
        if first > self._column // 2:
            for own in self._own:
                own.forget(first=first, column=self._column)
            self._starts = [start - first for start in self._starts]
            self._column -= first

    def _add_prompts(self, mask_UP: torch.Tensor, fresh: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        if not len(self._mask_UP):
            self._mask_UP = mask_UP
            for held, (keys, values) in zip(self._prefix, fresh, strict=True):
                held.keys, held.values = keys, values
            return
        width = max(self._mask_UP.shape[1], mask_UP.shape[1])
        pad = torch.nn.functional.pad

        def padded(states: torch.Tensor) -> torch.Tensor:
            return pad(states, (0, 0, width - states.shape[2], 0))

        for held, (keys, values) in zip(self._prefix, fresh, strict=True):
            held.keys = torch.cat([padded(held.keys), padded(keys)])
            held.values = torch.cat([padded(held.values), padded(values)])
        both = (pad(mask, (width - mask.shape[1], 0)) for mask in (self._mask_UP, mask_UP))
        self._mask_UP = torch.cat(list(both))

    def keep(self, order: Sequence[int]) -> None:
        self._groups = [self._groups[row] for row in order]
        self._starts = [self._starts[row] for row in order]
        self._arranged = False
        movers = [(new, old) for new, old in enumerate(order) if new != old]
        if movers:
            for own in self._own:
                own.move(movers, first=min(self._starts), column=self._column)
        left = sorted(set(self._groups))
        if len(left) < len(self._mask_UP):
            self._keep_prompts(left)

    def _keep_prompts(self, left: Sequence[int]) -> None:
        order = compacted(left)
        movers = [(new, old) for new, old in enumerate(order) if new != old]
        mask_UP = self._mask_UP[torch.tensor(order, dtype=torch.long, device=self._mask_UP.device)]
        first = int(
            mask_UP.any(0).int().argmax()
        )  # in front of it there is padding only, once a long prompt has left
        for held in self._prefix:
            for states in (held.keys, held.values):
                for new, old in movers:
                    states[new] = states[old]
            held.keys = held.keys[: len(order), :, first:]
            held.values = held.values[: len(order), :, first:]
        self._mask_UP = mask_UP[:, first:]
        place = {old: new for new, old in enumerate(order)}
        self._groups = [place[group] for group in self._groups]

    def _arrange(self) -> None:
        """Work out, after rows came or went, which seat of a groups-by-seats table each row takes, and the masks."""
        device = self._mask_UP.device
        taken = [0] * len(self._mask_UP)
        seats = []
        for group in self._groups:
            seats.append((group, taken[group]))
            taken[group] += 1
        self._widest = max(taken)
        places = [group * self._widest + seat for group, seat in seats]
        in_order = places == list(range(len(self._mask_UP) * self._widest))
        self._seats_R = None if in_order else torch.tensor(places, device=device)
        self._prompt_bias = None if bool(self._mask_UP.all()) else _bias(self._mask_UP)[:, None, None]
        self._first = min(self._starts)
        late = self._first < max(self._starts)
        self._starts_R = torch.tensor(self._starts, device=device) if late else None
        self._arranged = True

    def read(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        if not self._arranged:
            self._arrange()
        for own in self._own:
            own.make_columns(self._column + 1, rows=len(self._groups))
        self._own_bias = None
        if self._starts_R is not None:
            columns_T = torch.arange(self._first, self._column + 1, device=tokens_R.device)
            self._own_bias = _bias(columns_T >= self._starts_R[:, None])[:, None, None]
        hidden_RD = self._text.embed_tokens(tokens_R)
        cos, sin = self._text.rotary_emb(hidden_RD[:, None], widen(positions_R[:, None], axes=self._axes))
        for place, layer in enumerate(self._text.layers):
            attended = self._attend(place, layer.self_attn, layer.input_layernorm(hidden_RD), cos, sin)
            hidden_RD = hidden_RD + attended
            hidden_RD = hidden_RD + layer.mlp(layer.post_attention_layernorm(hidden_RD))
        self._column += 1
        return self._head(self._text.norm(hidden_RD))

    def _attend(
        self, place: int, attention: Any, hidden_RD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        shape = (len(hidden_RD), -1, attention.head_dim)
        query, key = attention.q_proj(hidden_RD).view(shape), attention.k_proj(hidden_RD).view(shape)
        if type(attention).__name__.startswith("Qwen3"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        value = attention.v_proj(hidden_RD).view(shape)
        keys, values = self._own[place].write(key, value, first=self._first, column=self._column)
        rows, heads, width = len(query), key.shape[1], query.shape[-1]
        query_RKNE = (query * attention.scaling).view(rows, heads, -1, width)
        prompt_scores = self._prompt_scores(self._prefix[place].keys, query_RKNE)
        own_scores = query_RKNE @ keys.transpose(-1, -2)
        if self._own_bias is not None:
            own_scores = own_scores + self._own_bias
        scores = torch.cat([prompt_scores, own_scores], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
        length = prompt_scores.shape[-1]
        said = weights[..., length:] @ values.to(weights.dtype)
        said = said + self._from_prompt(self._prefix[place].values, weights[..., :length])
        return attention.o_proj(said.to(hidden_RD.dtype).view(rows, -1))

    def _prompt_scores(self, keys_UKPE: torch.Tensor, query_RKNE: torch.Tensor) -> torch.Tensor:
        table = self._seated(query_RKNE) @ keys_UKPE.transpose(-1, -2)
        if self._prompt_bias is not None:
            table = table + self._prompt_bias
        return self._unseated(table, like=query_RKNE)

    def _from_prompt(self, values_UKPE: torch.Tensor, weights_RKNP: torch.Tensor) -> torch.Tensor:
        return self._unseated(
            self._seated(weights_RKNP) @ values_UKPE.to(weights_RKNP.dtype), like=weights_RKNP
        )

    def _seated(self, rows_RKNx: torch.Tensor) -> torch.Tensor:
        """The rows by prompt: U x K x (M N) x whatever; seats that nobody takes hold zeros."""
        _, heads, share, last = rows_RKNx.shape
        if self._seats_R is not None:
            table = rows_RKNx.new_zeros(len(self._mask_UP) * self._widest, heads, share, last)
            rows_RKNx = table.index_copy_(0, self._seats_R, rows_RKNx)
        by_prompt = rows_RKNx.view(-1, self._widest, heads, share, last).transpose(1, 2)
        return by_prompt.reshape(-1, heads, self._widest * share, last)

    def _unseated(self, table: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
        """The table's rows again as R x K x N x whatever."""
        _, heads, share, _ = like.shape
        seats = table.view(-1, heads, self._widest, share, table.shape[-1]).transpose(1, 2).flatten(0, 1)
        return seats if self._seats_R is None else seats[self._seats_R]


def _visible(states_UKPE: torch.Tensor, hidden_U1P1: torch.Tensor | None) -> torch.Tensor:
    """The states with 0 where the prompt is padding, in one block of memory."""
    return (
        states_UKPE.contiguous()
        if hidden_U1P1 is None
        else states_UKPE.masked_fill(hidden_U1P1, 0).contiguous()
    )


def _bias(seen: torch.Tensor) -> torch.Tensor:
    """0 where it may be seen, -inf elsewhere."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


def _rotate(states_RHE: torch.Tensor, cos_R1E: torch.Tensor, sin_R1E: torch.Tensor) -> torch.Tensor:
    """Rotary positions, by halves."""
    near, far = states_RHE.chunk(2, -1)
    return states_RHE * cos_R1E + torch.cat([-far, near], -1) * sin_R1E


class CopiedMemory:
    """Keys and values of prompt and completion for each row, read by the model's own forward: for any model."""

    def __init__(self, base: Any, *, axes: int) -> None:
        self._base = base
        self._axes = axes
        self._cache: DynamicCache | None = None
        self._mask_RT = torch.empty(0, 0, dtype=torch.long)

    def join(self, prefix: Prefix, *, samples: int) -> None:
        cache, mask_RT = prefix.cache, prefix.mask_UP.repeat_interleave(samples, 0)
        cache.batch_repeat_interleave(samples)
        layers = cast(Any, cache.layers)
        pad = torch.nn.functional.pad
        if self._cache is not None:
            self._forget_columns()
            width = max(self._mask_RT.shape[1], mask_RT.shape[1])

            def together(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
                return torch.cat([pad(s, (0, 0, width - s.shape[2], 0)) for s in (old, new)])

            for layer, held in zip(layers, cast(Any, self._cache.layers), strict=True):
                layer.keys = together(held.keys, layer.keys)
                layer.values = together(held.values, layer.values)
            mask_RT = torch.cat([pad(m, (width - m.shape[1], 0)) for m in (self._mask_RT, mask_RT)])
        self._cache, self._mask_RT = cache, mask_RT

    def _forget_columns(self) -> None:
        """Drop the columns in front that no row sees any more."""
        first = int(self._mask_RT.any(0).int().argmax())
        self._mask_RT = self._mask_RT[:, first:]
        for layer in cast(Any, self._cache).layers:
            layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]

    def keep(self, order: Sequence[int]) -> None:
        rows_R = torch.tensor(order, device=self._mask_RT.device, dtype=torch.long)
        assert self._cache is not None
        self._cache.batch_select_indices(rows_R)
        self._mask_RT = self._mask_RT[rows_R]

    def read(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        self._mask_RT = torch.nn.functional.pad(self._mask_RT, (0, 1), value=1)
        out = self._base(
            input_ids=tokens_R[:, None],
            # Without padding in front the mask says nothing that causality does not, and attention is faster.
            attention_mask=None if bool(self._mask_RT.all()) else self._mask_RT,
            position_ids=widen(positions_R[:, None], axes=self._axes),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]
