"""A quickened vision tower gives what transformers' own gives, in fewer calls."""

from __future__ import annotations

import copy
import io
from unittest import mock

import pytest
import tiny_random
import torch

from opengrit.models import vision_tower
from opengrit.models.vision_tower import quicken_tower, restore_tower

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
    """The model as transformers builds it."""
    restore_tower(made.base)
    return made.base


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


@pytest.mark.parametrize("family", TOWERS)
def test_a_quickened_model_is_copied_stored_and_built_from_its_config_as_any_other(family, tmp_path):
    model = own_tower(TOWERS[family]())
    pixels = pixels_of(model.model.visual)
    quicken_tower(model)
    tokens, _ = encoded(model, pixels)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for copied in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        copied.model.visual.patch_embed.proj.weight.data.mul_(2)
        assert not torch.equal(encoded(copied, pixels)[0], tokens)  # with weights of its own
    torch.testing.assert_close(encoded(model, pixels)[0], tokens)
    model.save_pretrained(tmp_path)
    assert vision_tower.ATTENTION not in (tmp_path / "config.json").read_text()
    for built in (type(model)(copy.deepcopy(model.config)), type(model).from_pretrained(tmp_path)):
        assert type(built.model.visual.patch_embed.proj) is torch.nn.Conv3d
        assert built.model.visual.blocks[0].attn.config._attn_implementation == "sdpa"


def test_checkpointed_layers_are_computed_again_with_the_same_attention():
    model = own_tower(tiny_random.qwen())
    pixels = pixels_of(model.model.visual)
    quicken_tower(model)
    _, gradients = encoded(model, pixels)
    model.gradient_checkpointing_enable()
    model.train()
    _, again = encoded(model, pixels)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient)


@pytest.mark.parametrize("other", ["eager", "flash_attention_2"])
def test_a_tower_with_another_attention_keeps_it_also_where_it_is_changed_later(other):
    model = own_tower(tiny_random.qwen())
    tower = model.model.visual
    quicken_tower(model)
    tower.config._attn_implementation = other
    quicken_tower(model)
    assert all(block.attn.config is tower.config for block in tower.blocks)
    tower.config._attn_implementation = "sdpa"
    quicken_tower(model)
    assert all(block.attn.config is not tower.config for block in tower.blocks)


def test_nothing_is_done_twice_and_all_is_undone():
    model = own_tower(tiny_random.qwen())
    tower = model.model.visual
    quicken_tower(model)
    configs = [block.attn.config for block in tower.blocks]
    quicken_tower(model)
    assert [block.attn.config for block in tower.blocks] == configs
    restore_tower(model)
    assert type(tower.patch_embed.proj) is torch.nn.Conv3d
    assert all(block.attn.config is tower.config for block in tower.blocks)


def test_a_family_without_such_a_tower_is_left_alone():
    model = tiny_random.internvl3().base
    before = dict(vars(model.model.vision_tower))
    quicken_tower(model)
    restore_tower(model)
    assert vars(model.model.vision_tower) == before
