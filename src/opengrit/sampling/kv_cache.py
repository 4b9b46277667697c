"""Key-value caches of a running batch, and one more token for each of its rows over them."""

# U prompts, R rows, H heads, K key-value heads, N = H / K heads to a key-value head, M rows of the largest group,
# P prompt tokens, T slots (one sampled token of each row), V vocabulary, E width of a head, A position axes.
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from transformers import DynamicCache

from opengrit.sampling.kv_buffers import PromptBuffer, RowBuffer, compacted
from opengrit.sampling.layer_products import LayerProducts, normed
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
    """Prompts after prefill: keys and values, the mask over them, and what comes next for each prompt."""

    cache: DynamicCache
    mask_UP: torch.Tensor
    next_position_U: torch.Tensor
    last_logits_UV: torch.Tensor


class KVCache(Protocol):
    """The keys and values of the rows of a running batch. Rows are numbered from 0 in the order they joined."""

    def add(self, prefix: Prefix, *, samples: int) -> None:
        """Add `samples` rows for each prompt, behind the rows there are, those of a prompt together."""
        ...

    def keep(self, order: Sequence[int]) -> None:
        """Keep these rows only; `order[r]` is the old place of the new row r.

        A row stays where it is or moves down into the place of a row that leaves.
        """
        ...

    def decode(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        """The logits (R x V) after one more token in every row."""
        ...


def kv_cache_for(base: Any, *, axes: int, logged: set[str]) -> KVCache:
    """A cache that shares prompts where the model's decoder layers allow it, else one that copies them.

    The reason to copy is logged once: `logged` holds the reasons so far.
    """
    obstacle = _obstacle(base)
    if obstacle is None:
        return SharedPromptCache(base, axes=axes)
    if obstacle not in logged:
        logged.add(obstacle)
        _log.info("prompts are copied for every completion while decoding, not shared: %s", obstacle)
    return PerRowCache(base, axes=axes)


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
            return f"{name} uses sliding-window attention"
    return None


class SharedPromptCache:
    """Keys and values of each prompt once, and each row's own; decodes with the weights of the model's own modules.

    A row's attention weighs its prompt and its own tokens in one softmax: exact, in any batch. The rows of a prompt
    read the prompt's keys and values together, so a step costs the weights once, each prompt once and each row's own
    tokens. Rows write into one common slot; a row that joined late sees no slot before its own first.
    """

    def __init__(self, base: Any, *, axes: int) -> None:
        self._text = base.model.language_model
        self._head = base.get_output_embeddings()
        self._axes = axes
        self._key_value_heads: int = self._text.config.num_key_value_heads
        self._products: list[LayerProducts] = []
        layers = range(len(self._text.layers))
        self._prefix = [PromptBuffer() for _ in layers]
        self._own = [RowBuffer() for _ in layers]
        self._mask_UP = torch.empty(0, 0, dtype=torch.bool)
        self._groups: list[int] = []  # the prompt of each row
        self._starts: list[int] = []  # the first slot of each row
        self._slot = 0  # where the next token is written
        self._grouped = False

    def add(self, prefix: Prefix, *, samples: int) -> None:
        mask_UP = prefix.mask_UP.bool()
        hidden = None if bool(mask_UP.all()) else ~mask_UP[:, None, :, None]
        fresh = [
            (_visible(layer.keys, hidden), _visible(layer.values, hidden))
            for layer in cast(Any, prefix.cache.layers)
        ]
        if not self._groups:  # weights may have changed while there were no rows
            self._products = [LayerProducts(layer) for layer in self._text.layers]
        self._drop_unused_slots()
        self._add_prompts(mask_UP, fresh)
        first = len(self._mask_UP) - len(mask_UP)
        before = len(self._groups)
        self._groups += [first + prompt for prompt in range(len(mask_UP)) for _ in range(samples)]
        self._starts += [self._slot] * (len(self._groups) - before)
        for own, (keys, values) in zip(self._own, fresh, strict=True):
            own.reserve_rows(keys, values, rows=len(self._groups), slots=self._slot)
            # Weighted by 0, but uninitialized values may be NaN.
            own.keys[: self._slot, before : len(self._groups)] = 0
            own.values[: self._slot, before : len(self._groups)] = 0
        self._grouped = False

    def _drop_unused_slots(self) -> None:
        """Move every slot to the front where half of them or more belong to rows that have left."""
        first = min(self._starts, default=0)
        if first > self._slot // 2:
            for own in self._own:
                own.shift(first=first, slot=self._slot)
            self._starts = [start - first for start in self._starts]
            self._slot -= first

    def _add_prompts(self, mask_UP: torch.Tensor, fresh: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        if not len(self._mask_UP):
            self._mask_UP = mask_UP
            for held, (keys, values) in zip(self._prefix, fresh, strict=True):
                held.keys, held.values = keys, values
            return
        for held, (keys, values) in zip(self._prefix, fresh, strict=True):
            held.keys, held.values = _joined(held.keys, keys), _joined(held.values, values)
        self._mask_UP = _joined_masks(self._mask_UP, mask_UP)

    def keep(self, order: Sequence[int]) -> None:
        self._groups = [self._groups[row] for row in order]
        self._starts = [self._starts[row] for row in order]
        self._grouped = False
        movers = [(new, old) for new, old in enumerate(order) if new != old]
        if movers:
            for own in self._own:
                own.move_rows(movers, first=min(self._starts), slot=self._slot)
        left = sorted(set(self._groups))
        if len(left) < len(self._mask_UP):
            self._keep_prompts(left)

    def _keep_prompts(self, left: Sequence[int]) -> None:
        order = compacted(left)
        movers = [(new, old) for new, old in enumerate(order) if new != old]
        mask_UP = self._mask_UP[torch.tensor(order, dtype=torch.long, device=self._mask_UP.device)]
        # Before it there is padding only, once a long prompt has left.
        first = int(mask_UP.any(0).int().argmax())
        for held in self._prefix:
            for states in (held.keys, held.values):
                for new, old in movers:
                    states[new] = states[old]
            held.keys = held.keys[: len(order), :, first:]
            held.values = held.values[: len(order), :, first:]
        self._mask_UP = mask_UP[:, first:]
        place = {old: new for new, old in enumerate(order)}
        self._groups = [place[group] for group in self._groups]

    def _group_rows(self) -> None:
        """After rows came or went: where rows' heads lie in a table U x K x M, which row's head is at each place, and the masks."""
        device = self._mask_UP.device
        taken = [0] * len(self._mask_UP)
        numbers = []  # each row's number among its prompt's rows
        for group in self._groups:
            numbers.append(taken[group])
            taken[group] += 1
        self._widest = max(taken)
        heads = torch.arange(self._key_value_heads, device=device)
        groups_R, numbers_R = (torch.tensor(values, device=device) for values in (self._groups, numbers))
        places_RK = (groups_R[:, None] * len(heads) + heads) * self._widest + numbers_R[:, None]
        self._places_RK = places_RK.flatten()
        # A place without a row repeats a row's head: what is made of it is not read.
        self._sources_UKM = self._places_RK.new_zeros(len(taken) * len(heads) * self._widest)
        self._sources_UKM[self._places_RK] = torch.arange(len(self._places_RK), device=device)
        self._prompt_bias = None if bool(self._mask_UP.all()) else _bias(self._mask_UP)[:, None, None]
        self._first = min(self._starts)
        late = self._first < max(self._starts)
        self._starts_R = torch.tensor(self._starts, device=device) if late else None
        self._grouped = True

    def decode(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        if not self._grouped:
            self._group_rows()
        for own in self._own:
            own.reserve_slots(self._slot + 1, rows=len(self._groups))
        self._own_bias = None
        if self._starts_R is not None:
            slots_T = torch.arange(self._first, self._slot + 1, device=tokens_R.device)
            self._own_bias = _bias(slots_T >= self._starts_R[:, None])[:, None, None]
        hidden_RD = self._text.embed_tokens(tokens_R)
        cos, sin = self._text.rotary_emb(hidden_RD[:, None], widen(positions_R[:, None], axes=self._axes))
        # Rotation by halves is x cos + (halves of x exchanged) sin, with the first half of sin negated.
        sin = torch.cat([-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]], -1)
        for index, layer in enumerate(self._text.layers):
            normed_RD = normed(layer.input_layernorm, hidden_RD)
            hidden_RD = hidden_RD + self._attend(index, layer.self_attn, normed_RD, cos, sin)
            normed_RD = normed(layer.post_attention_layernorm, hidden_RD)
            hidden_RD = hidden_RD + self._products[index].feed_forward(normed_RD)
        self._slot += 1
        return self._head(normed(self._text.norm, hidden_RD))

    def _attend(
        self, index: int, attention: Any, hidden_RD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        projected = self._products[index].projected(hidden_RD)
        heads = projected.shape[1] - 2 * self._key_value_heads
        both, value = projected.split((heads + self._key_value_heads, self._key_value_heads), 1)
        if type(attention).__name__.startswith("Qwen3"):
            query, key = both.split((heads, self._key_value_heads), 1)
            both = torch.cat([normed(attention.q_norm, query), normed(attention.k_norm, key)], 1)
        both = torch.addcmul(both * cos, both.roll(both.shape[-1] // 2, -1), sin)
        query, key = both.split((heads, self._key_value_heads), 1)
        keys, values = self._own[index].write(key, value, first=self._first, slot=self._slot)
        prompt = self._prefix[index]
        rows, _, width = query.shape
        query_RKNE = (query * attention.scaling).view(rows, self._key_value_heads, -1, width)
        table = self._by_prompt(query_RKNE) @ prompt.keys.transpose(-1, -2)
        if self._prompt_bias is not None:
            table = table + self._prompt_bias
        prompt_scores = self._by_row(table, like=query_RKNE)
        own_scores = query_RKNE @ keys.transpose(-1, -2)
        if self._own_bias is not None:
            own_scores = own_scores + self._own_bias
        scores = torch.cat([prompt_scores, own_scores], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
        prompt_weights, own_weights = weights.split((prompt_scores.shape[-1], own_scores.shape[-1]), -1)
        attended = own_weights @ values.to(weights.dtype)
        table = self._by_prompt(prompt_weights) @ prompt.values.to(weights.dtype)
        attended = attended + self._by_row(table, like=query_RKNE)
        return attention.o_proj(attended.to(hidden_RD.dtype).view(rows, -1))

    def _by_prompt(self, rows_RKNx: torch.Tensor) -> torch.Tensor:
        """The rows by prompt, U x K x (M N) x any."""
        _, heads, share, last = rows_RKNx.shape
        table = rows_RKNx.reshape(-1, share * last).index_select(0, self._sources_UKM)
        return table.view(len(self._mask_UP), heads, self._widest * share, last)

    def _by_row(self, table: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
        """The table's rows again, R x K x N x any."""
        rows, heads, share, _ = like.shape
        last = table.shape[-1]
        return table.view(-1, share * last).index_select(0, self._places_RK).view(rows, heads, share, last)


def _visible(states_UKPE: torch.Tensor, hidden_U1P1: torch.Tensor | None) -> torch.Tensor:
    """The states with 0 where the prompt is padding, contiguous."""
    if hidden_U1P1 is not None:
        states_UKPE = states_UKPE.masked_fill(hidden_U1P1, 0)
    return states_UKPE.contiguous()


def _joined(old_UKPE: torch.Tensor, new_UKPE: torch.Tensor) -> torch.Tensor:
    """Keys or values behind those there are, all padded on the left to one length."""
    length = max(old_UKPE.shape[2], new_UKPE.shape[2])
    pad = torch.nn.functional.pad
    return torch.cat([pad(s, (0, 0, length - s.shape[2], 0)) for s in (old_UKPE, new_UKPE)])


def _joined_masks(old_UP: torch.Tensor, new_UP: torch.Tensor) -> torch.Tensor:
    """Masks behind those there are, padded as `_joined` pads."""
    length = max(old_UP.shape[1], new_UP.shape[1])
    return torch.cat([torch.nn.functional.pad(m, (length - m.shape[1], 0)) for m in (old_UP, new_UP)])


def _bias(seen: torch.Tensor) -> torch.Tensor:
    """An attention bias: 0 where a key is visible, -inf elsewhere."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


class PerRowCache:
    """Keys and values of prompt and completion for each row, used by the model's own forward pass: for any model."""

    def __init__(self, base: Any, *, axes: int) -> None:
        self._base = base
        self._axes = axes
        self._cache: DynamicCache | None = None
        self._mask_RT = torch.empty(0, 0, dtype=torch.long)

    def add(self, prefix: Prefix, *, samples: int) -> None:
        cache, mask_RT = prefix.cache, prefix.mask_UP.repeat_interleave(samples, 0)
        cache.batch_repeat_interleave(samples)
        if self._cache is not None:
            self._drop_unused_slots()
            for layer, held in zip(cast(Any, cache.layers), cast(Any, self._cache.layers), strict=True):
                layer.keys = _joined(held.keys, layer.keys)
                layer.values = _joined(held.values, layer.values)
            mask_RT = _joined_masks(self._mask_RT, mask_RT)
        self._cache, self._mask_RT = cache, mask_RT

    def _drop_unused_slots(self) -> None:
        """Drop the slots at the front that no row sees any more."""
        first = int(self._mask_RT.any(0).int().argmax())
        self._mask_RT = self._mask_RT[:, first:]
        for layer in cast(Any, self._cache).layers:
            layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]

    def keep(self, order: Sequence[int]) -> None:
        rows_R = torch.tensor(order, device=self._mask_RT.device, dtype=torch.long)
        assert self._cache is not None
        self._cache.batch_select_indices(rows_R)
        self._mask_RT = self._mask_RT[rows_R]

    def decode(self, tokens_R: torch.Tensor, positions_R: torch.Tensor) -> torch.Tensor:
        self._mask_RT = torch.nn.functional.pad(self._mask_RT, (0, 1), value=1)
        out = self._base(
            input_ids=tokens_R[:, None],
            # Without padding the mask says no more than causality does, and attention is faster without it.
            attention_mask=None if bool(self._mask_RT.all()) else self._mask_RT,
            position_ids=widen(positions_R[:, None], axes=self._axes),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]
