"""A vision tower as fast as its arithmetic, with the same weights and results: patches in one product, windows together.

transformers embeds Qwen's patches with a convolution whose kernel is as large as its input, and without a flash-attention
package it attends to pictures and windows one by one: a picture of 1000 x 1000 pixels has a hundred windows in each of
28 layers. Both change no result beyond rounding.
"""

# N patches, W windows of one length, L patches of a window, H heads, E width of a head.
from __future__ import annotations

import types
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# transformers hands whole rows with their boundaries to an attention that has "flash" in its name, and windows one by one to others.
ATTENTION = "opengrit_windows_as_flash"
_REPLACED = ("sdpa", "eager")  # attention that SDPA computes as well


def quicken_tower(model: Any) -> None:
    """Let the vision tower of a Qwen model embed patches in one product and attend to windows of one length in one call.

    Nothing is done a second time, nor to a tower of another shape or with another attention.
    """
    tower = getattr(model.model, "visual", None)
    if tower is None:
        return
    patches = tower.patch_embed.proj
    if type(patches) is torch.nn.Conv3d and "forward" not in vars(patches) and _takes_whole_inputs(patches):
        patches.forward = types.MethodType(_as_product, patches)
    if tower.config._attn_implementation in _REPLACED:
        AttentionInterface.register(ATTENTION, _attend)
        tower.config._attn_implementation = ATTENTION


def _takes_whole_inputs(convolution: torch.nn.Conv3d) -> bool:
    return (
        convolution.stride == convolution.kernel_size
        and convolution.groups == 1
        and set(convolution.dilation) == {1}
        and convolution.padding == (0, 0, 0)
    )


def _as_product(self: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """The convolution's output (N x channels x 1 x 1 x 1) for patches that are as large as its kernel."""
    if patches.shape[2:] != self.kernel_size:
        return torch.nn.Conv3d.forward(self, patches)
    return functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def _attend(
    module: torch.nn.Module,
    query_1HNE: torch.Tensor,
    key_1HNE: torch.Tensor,
    value_1HNE: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA within each window, windows of one length in one call; 1 x N x H x E, in the order of the patches."""
    lengths = cu_seq_lens_q.diff().tolist()
    windows = [states[0].split(lengths, 1) for states in (query_1HNE, key_1HNE, value_1HNE)]
    found: dict[int, torch.Tensor] = {}
    for length in dict.fromkeys(lengths):
        chosen = [place for place, own in enumerate(lengths) if own == length]
        states = (torch.stack([parts[place] for place in chosen]) for parts in windows)
        out_WLHE, _weights = sdpa_attention_forward(
            module, *states, attention_mask=None, scaling=scaling, dropout=dropout, is_causal=False
        )
        found |= dict(zip(chosen, out_WLHE.unbind(), strict=True))
    return torch.cat([found[place] for place in range(len(lengths))])[None], None
