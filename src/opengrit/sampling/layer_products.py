"""A decoder layer's products for single tokens: those over one input in one call, where the weights are few.

A step of a small model takes as long as its calls. Its weights are copied side by side when the first rows join a batch: once
for hundreds of tokens, and not for longer than rows are decoded.
"""

# R rows, D width of the model, H heads, K key-value heads, E width of a head.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

# Weights of one product at most: to read more takes so long (on a CPU) that calls do not matter, and they would take memory twice.
JOINED_BYTES = 2**20
_GATED = ("Qwen2MLP", "Qwen3MLP", "Qwen3VLTextMLP", "LlamaMLP")  # `down(act(gate(x)) * up(x))`
_RMS_NORMS = (
    "Qwen2RMSNorm", "Qwen2VLRMSNorm", "Qwen2_5_VLRMSNorm", "Qwen3RMSNorm", "Qwen3VLTextRMSNorm", "LlamaRMSNorm",
)  # fmt: skip


class LayerProducts:
    """What a layer with attention of three projections makes of its input.

    Products over one input are one product where their weights have at most `joined_bytes` bytes together, else the modules' own.
    """

    def __init__(self, layer: Any, *, joined_bytes: int = JOINED_BYTES) -> None:
        attention = layer.self_attn
        self._head_dim: int = attention.head_dim
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._project = _one_product(projections, joined_bytes) or _apart(projections)
        self._mlp = layer.mlp
        self._gate_and_up = None
        if type(layer.mlp).__name__ in _GATED and _is_unchanged(layer.mlp):
            self._gate_and_up = _one_product((layer.mlp.gate_proj, layer.mlp.up_proj), joined_bytes)

    def projected(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, R x (H + 2 K) x E."""
        return self._project(hidden_RD).view(len(hidden_RD), -1, self._head_dim)

    def feed_forward(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """R x D."""
        out: torch.Tensor
        if self._gate_and_up is None:
            out = self._mlp(hidden_RD)
            return out
        gate, up = self._gate_and_up(hidden_RD).chunk(2, -1)
        out = self._mlp.down_proj(self._mlp.act_fn(gate) * up)
        return out


def normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What an RMSNorm makes of its input: in 32 bits in one call, which rounds as its own does."""
    in_32_bits = hidden.dtype is torch.float32 and norm.weight.dtype is torch.float32
    if in_32_bits and type(norm).__name__ in _RMS_NORMS and _is_unchanged(norm):
        return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
    out: torch.Tensor = norm(hidden)
    return out


def _one_product(modules: Sequence[Any], most_bytes: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """All modules' outputs side by side; None where one is more than a product, or the weights are too many."""
    for module in modules:
        if type(module) is not torch.nn.Linear or type(module.weight) is not torch.nn.Parameter:
            return None
        if not _is_unchanged(module):
            return None
    biases = [m.bias for m in modules if m.bias is not None]
    if len(biases) not in (0, len(modules)):
        return None
    if sum(m.weight.numel() * m.weight.element_size() for m in modules) > most_bytes:
        return None
    weight = torch.cat([m.weight for m in modules])
    bias = torch.cat(biases) if biases else None
    return lambda inputs: functional.linear(inputs, weight, bias)


def _apart(modules: Sequence[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda inputs: torch.cat([module(inputs) for module in modules], -1)


def _is_unchanged(module: Any) -> bool:
    """Whether a call of the module is a call of its class's forward pass: no hooks of its own, nothing in its place."""
    return not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))
