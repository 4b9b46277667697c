"""Products over one input in one call: the values of the layer's own modules, and only where these are nothing more."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from peft import LoraConfig, get_peft_model
from torch.overrides import TorchFunctionMode

from opengrit.sampling import layer_products as products_of
from opengrit.sampling.layer_products import layer_products, normed

FAMILIES = [tiny_random.qwen, tiny_random.qwen3, tiny_random.internvl]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def first_layer(loaded):
    return loaded.base.model.language_model.layers[0]


def inputs(layer):
    return torch.randn(5, layer.self_attn.q_proj.in_features, generator=torch.Generator().manual_seed(0))


class Products(TorchFunctionMode):
    """Counts products with a weight."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.nn.functional.linear
        return func(*args, **(kwargs or {}))


def expected(layer, hidden):
    attention = layer.self_attn
    apart = [
        m(hidden).view(5, -1, attention.head_dim)
        for m in (attention.q_proj, attention.k_proj, attention.v_proj)
    ]
    return torch.cat(apart, 1), layer.mlp(hidden)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("most", "called"), [(products_of.JOINED_BYTES, 3), (0, 6)])
def test_the_values_are_those_of_the_modules_whether_weights_are_joined_or_too_many(
    family, most, called, monkeypatch
):
    layer = first_layer(family())
    monkeypatch.setattr(products_of, "JOINED_BYTES", most)
    (products,) = layer_products([layer])
    hidden = inputs(layer)
    projected, fed = expected(layer, hidden)
    assert torch.allclose(products.projected(hidden), projected, atol=1e-6)
    assert torch.allclose(products.feed_forward(hidden), fed, atol=1e-6)
    with Products() as counted:
        products.projected(hidden)
        products.feed_forward(hidden)
    assert counted.count == called


def test_weights_that_change_are_seen_by_the_next_batch():
    layer = first_layer(tiny_random.qwen())
    hidden = inputs(layer)
    layer_products([layer])[0].projected(hidden)
    layer.self_attn.q_proj.weight.mul_(2)
    assert torch.allclose(layer_products([layer])[0].projected(hidden), expected(layer, hidden)[0], atol=1e-6)


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.up_proj", "mlp"])
def test_a_module_that_something_hooks_into_is_called_itself(name):
    layer = first_layer(tiny_random.qwen())
    seen = []
    layer.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    (products,) = layer_products([layer])
    products.projected(inputs(layer))
    products.feed_forward(inputs(layer))
    assert seen == [name]


def test_a_forward_pass_in_the_place_of_a_modules_own_is_called():
    layer = first_layer(tiny_random.qwen())
    own = layer.self_attn.v_proj.forward
    layer.self_attn.v_proj.forward = lambda hidden: own(hidden) + 1
    (products,) = layer_products([layer])
    assert torch.allclose(products.projected(inputs(layer)), expected(layer, inputs(layer))[0], atol=1e-6)


def test_adapters_count():
    loaded = tiny_random.qwen()
    layer = first_layer(loaded)
    with torch.inference_mode(False):
        adapted = LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        get_peft_model(loaded.model, adapted)
    (products,) = layer_products([layer])
    projected, fed = expected(layer, hidden := inputs(layer))
    assert torch.allclose(products.projected(hidden), projected, atol=1e-6)
    assert torch.allclose(products.feed_forward(hidden), fed, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_the_modules_to_the_bit(dtype):
    norm = first_layer(tiny_random.qwen()).input_layernorm.to(dtype)
    hidden = torch.randn(7, len(norm.weight)).to(dtype)
    assert torch.equal(normed(norm, hidden), norm(hidden))
