"""A quickened vision tower gives what transformers' own gives, in fewer calls."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import tiny_random
import torch

from opengrit.models import vision_tower
from opengrit.models.vision_tower import quicken_tower

TOWERS = {
    "Qwen2-VL": tiny_random.qwen2,
    "Qwen2.5-VL": tiny_random.qwen,
    "Qwen3-VL": tiny_random.qwen3,
    "Qwen3-VL-MoE": tiny_random.qwen3_moe,
}
GRIDS = [
    (1, 8, 8),
    (1, 8, 12),
    (1, 12, 8),
    (1, 20, 14),
    (1, 8, 8),
]  # of which some windows are cut off at an edge


def own_tower(made) -> torch.nn.Module:
    """The model as transformers builds it: loading has quickened the one that is given."""
    model = copy.deepcopy(made.base)
    vars(model.model.visual.patch_embed.proj).pop("forward", None)
    model.model.visual.config._attn_implementation = "sdpa"
    return model


def encoded(model, pixels):
    """The pictures' tokens, and the gradients of the tower's weights by name."""
    model.zero_grad()
    found = model.get_image_features(
        pixel_values=pixels, image_grid_thw=torch.tensor(GRIDS), return_dict=True
    )
    tokens = torch.cat(list(found.pooler_output))
    (tokens * torch.arange(tokens.numel()).view_as(tokens).sin()).sum().backward()
    return tokens.detach(), {
        n: p.grad.clone() for n, p in model.model.visual.named_parameters() if p.grad is not None
    }


def pixels_of(tower) -> torch.Tensor:
    config = tower.config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    return torch.randn(
        sum(rows * columns for _, rows, columns in GRIDS), width, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("family", TOWERS)
def test_tokens_and_gradients_are_those_of_the_models_own_tower(family):
    model = own_tower(TOWERS[family]())
    tower = model.model.visual
    pixels = pixels_of(tower)
    tokens, gradients = encoded(model, pixels)
    quicken_tower(model)
    with mock.patch.object(torch.nn.Conv3d, "_conv_forward", side_effect=AssertionError("convolved")):
        quick_tokens, quick_gradients = encoded(model, pixels)
    torch.testing.assert_close(quick_tokens, tokens, rtol=1e-5, atol=1e-5)
    assert quick_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(quick_gradients[name], gradient, rtol=1e-4, atol=1e-5 * max(largest, 1))


def test_windows_of_one_length_take_one_call_a_layer(monkeypatch):
    model = own_tower(tiny_random.qwen())
    quicken_tower(model)
    calls: list[tuple[int, ...]] = []

    def counted(module, query, *states, **how):
        calls.append(tuple(query.shape))
        return attention(module, query, *states, **how)

    attention = vision_tower.sdpa_attention_forward
    monkeypatch.setattr(vision_tower, "sdpa_attention_forward", counted)
    encoded(model, pixels_of(model.model.visual))
    layers = len(model.model.visual.blocks)
    lengths = {tuple(shape[1:]) for shape in calls}
    assert len(calls) <= layers * len(lengths)
    assert max(shape[0] for shape in calls) > 1


def test_a_tower_with_an_attention_of_its_own_keeps_it_and_nothing_is_done_twice():
    model = own_tower(tiny_random.qwen())
    model.model.visual.config._attn_implementation = "flash_attention_2"
    quicken_tower(model)
    assert model.model.visual.config._attn_implementation == "flash_attention_2"
    forward = model.model.visual.patch_embed.proj.forward
    quicken_tower(model)
    assert model.model.visual.patch_embed.proj.forward is forward


def test_a_family_without_such_a_tower_is_left_alone():
    model = tiny_random.internvl3().base
    before = dict(vars(model.model.vision_tower))
    quicken_tower(model)
    assert vars(model.model.vision_tower) == before
