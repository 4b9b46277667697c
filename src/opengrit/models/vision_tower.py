"""A quicker vision tower of Qwen models with the same weights: patches in one product, windows of one length in one call.

transformers embeds patches with a convolution whose kernel is as large as its input, and without a flash-attention package it
attends to pictures and windows one by one: a picture of 1008 x 1008 pixels has 81 windows in most of 32 layers. Each of the two
in one call changes results by rounding only.
"""

# N patches, W windows of one length, L patches of a window, H heads, E width of a head.
from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# transformers hands whole rows with their boundaries to an attention that has "flash" in its name, and windows one by one to others.
ATTENTION = "opengrit_windows_as_flash"


class _WholePatches(torch.nn.Conv3d):
    """A convolution over patches that are as large as its kernel: a product, N x channels x 1 x 1 x 1."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        if patches.shape[2:] != self.kernel_size:
            return super().forward(patches)
        return functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)[
            :, :, None, None, None
        ]


def quicken_tower(model: Any) -> None:
    """Let a Qwen model's vision tower embed patches in one product, and SDPA attend to windows of one length in one call.

    The model's config stays as it is, so that it builds the model that it did. A tower of another shape is left alone, and one whose attention
    is no longer SDPA gets that of its config.
    """
    tower = getattr(model.model, "visual", None)
    if tower is None:
        return
    patches = tower.patch_embed.proj
    if type(patches) is torch.nn.Conv3d and _takes_whole_inputs(patches):
        patches.__class__ = _WholePatches
    is_sdpa = tower.config._attn_implementation == "sdpa"
    for block in tower.blocks:
        if is_sdpa and block.attn.config is tower.config:
            block.attn.config = copy.copy(tower.config)
            block.attn.config._attn_implementation = ATTENTION
        elif not is_sdpa:
            block.attn.config = tower.config


def restore_tower(model: Any) -> None:
    """Undo `quicken_tower`: the tower as transformers builds it."""
    tower = getattr(model.model, "visual", None)
    if tower is None:
        return
    if type(tower.patch_embed.proj) is _WholePatches:
        tower.patch_embed.proj.__class__ = torch.nn.Conv3d  # type: ignore[assignment]
    for block in tower.blocks:
        block.attn.config = tower.config


def _takes_whole_inputs(convolution: torch.nn.Conv3d) -> bool:
    return (
        convolution.stride == convolution.kernel_size
        and convolution.groups == 1
        and set(convolution.dilation) == {1}
        and convolution.padding == (0, 0, 0)
    )


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
    """SDPA within each window, windows of one length in one call. Returns 1 x N x H x E, in the order of the patches."""
    lengths = cu_seq_lens_q.diff().tolist()
    windows = [states[0].split(lengths, 1) for states in (query_1HNE, key_1HNE, value_1HNE)]
    found: dict[int, torch.Tensor] = {}
    for length in dict.fromkeys(lengths):
        chosen = [place for place, own in enumerate(lengths) if own == length]
        query, key, value = (torch.stack([parts[place] for place in chosen]) for parts in windows)
        out_WLHE, _weights = sdpa_attention_forward(
            module, query, key, value, attention_mask=None, scaling=scaling, dropout=dropout, is_causal=False
        )
        found |= dict(zip(chosen, out_WLHE.unbind(), strict=True))
    return torch.cat([found[place] for place in range(len(lengths))])[None], None


AttentionInterface.register(ATTENTION, _attend)
