"""A decoder layer's products for single tokens: those over one input in one call, where the weights are few.

A step of a small model takes as long as its calls. Its weights are copied side by side when a running batch begins: once for
hundreds of tokens, and never kept while weights may change.
"""

# R rows, D width of the model, H heads, K key-value heads, E width of a head.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

JOINED_BYTES = (
    16 * 2**20
)  # of all weights that are copied; to copy more takes longer than the calls that it saves


class LayerProducts:
    """What a layer of the plain shape (attention with three projections, a gated feed-forward part) makes of its input."""

    def __init__(self, layer: Any, *, joins: bool) -> None:
        attention, self._feed_forward = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._head_dim: int = attention.head_dim
        self._joined = (_joined(projections) if joins else None) or _separately(projections)
        self._gate_and_up = _joined(_gates(layer)) if joins and _has_own_forward(layer.mlp) else None

    def projected(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, R x (H + 2 K) x E."""
        return self._joined(hidden_RD).view(len(hidden_RD), -1, self._head_dim)

    def feed_forward(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """R x D."""
        out: torch.Tensor
        if self._gate_and_up is None:
            out = self._feed_forward(hidden_RD)
            return out
        gate, up = self._gate_and_up(hidden_RD).chunk(2, -1)
        out = self._feed_forward.down_proj(self._feed_forward.act_fn(gate) * up)
        return out


def layer_products(layers: Sequence[Any]) -> list[LayerProducts]:
    """The products of each layer; weights are copied for all of them or none."""
    weights = [
        getattr(module, "weight", None)
        for layer in layers
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, *_gates(layer))
    ]
    joins = sum(w.numel() * w.element_size() for w in weights if w is not None) <= JOINED_BYTES
    return [LayerProducts(layer, joins=joins) for layer in layers]


def normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What an RMSNorm makes of its input: of 32 bits in one call, which rounds as its own does."""
    out: torch.Tensor
    if (
        hidden.dtype is not torch.float32
        or not hasattr(norm, "variance_epsilon")
        or not _has_own_forward(norm)
    ):
        out = norm(hidden)
        return out
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _gates(layer: Any) -> tuple[Any, Any]:
    return layer.mlp.gate_proj, layer.mlp.up_proj


def _joined(modules: Sequence[Any]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """All modules' outputs side by side from one product; None where one is more than a product with its weight."""
    if not all(
        type(m) is torch.nn.Linear and type(m.weight) is torch.nn.Parameter and _has_own_forward(m)
        for m in modules
    ):
        return None
    biases = [m.bias for m in modules if m.bias is not None]
    if len(biases) not in (0, len(modules)):
        return None
    weight = torch.cat([m.weight for m in modules])
    bias = torch.cat(biases) if biases else None
    return lambda inputs: functional.linear(inputs, weight, bias)


def _separately(modules: Sequence[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda inputs: torch.cat([module(inputs) for module in modules], -1)


def _has_own_forward(module: Any) -> bool:
    """Whether a call of the module is a call of its class's forward pass: nothing hooks into it or stands in its place."""
    return not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))
