"""Products over one input in one call: the values of the layer's own modules, and only where these are nothing more."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from peft import LoraConfig, get_peft_model
from torch.overrides import TorchFunctionMode

from opengrit.sampling import Asked, SamplingSettings
from opengrit.sampling.continuous_batch import ContinuousBatch
from opengrit.sampling.layer_products import JOINED_BYTES, LayerProducts, normed
from opengrit.sampling.transformers_engine import TransformersSampler

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
@pytest.mark.parametrize(("most", "called"), [(JOINED_BYTES, 3), (0, 6)])
def test_the_values_are_those_of_the_modules_whether_weights_are_joined_or_too_many(family, most, called):
    layer = first_layer(family())
    products = LayerProducts(layer, joined_bytes=most)
    hidden = inputs(layer)
    projected, fed = expected(layer, hidden)
    assert torch.allclose(products.projected(hidden), projected, atol=1e-6)
    assert torch.allclose(products.feed_forward(hidden), fed, atol=1e-6)
    with Products() as counted:
        products.projected(hidden)
        products.feed_forward(hidden)
    assert counted.count == called


def written(batch, question):
    """The tokens of an answer in a batch that is empty before and after."""
    batch.admit([question], [SamplingSettings(temperature=0, max_new_tokens=12, stop=())])
    while batch.live:
        done = [update.done for update in batch.step()]
    return done[0].completion.token_ids


def test_weights_that_change_while_a_batch_is_empty_are_decoded_with(tmp_path):
    loaded = tiny_random.talkative(tiny_random.qwen())
    picture = tiny_random.picture(tmp_path, "a.png", width=60, height=60)
    question = Asked("a", picture, "How many dogs?")
    batch = ContinuousBatch(TransformersSampler(loaded))
    before = written(batch, question)
    for layer in loaded.base.model.language_model.layers:
        layer.self_attn.v_proj.weight.mul_(-3)
    after = written(batch, question)
    assert after == written(ContinuousBatch(TransformersSampler(loaded)), question)
    assert after != before


class Clamped(torch.nn.Module):
    """A feed-forward part with the projections of the usual one and another formula."""

    def __init__(self, usual):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = usual.gate_proj, usual.up_proj, usual.down_proj
        self.act_fn = usual.act_fn

    def forward(self, hidden):
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden).clamp(-0.01, 0.01))


@pytest.mark.parametrize(
    "replaced", [Clamped, lambda usual: torch.nn.Sequential(usual.gate_proj, usual.down_proj)]
)
def test_a_feed_forward_part_of_another_kind_is_called_itself(replaced):
    layer = first_layer(tiny_random.qwen())
    layer.mlp = replaced(layer.mlp)
    hidden = inputs(layer)
    assert torch.equal(LayerProducts(layer).feed_forward(hidden), layer.mlp(hidden))


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.up_proj", "mlp"])
def test_a_module_that_something_hooks_into_is_called_itself(name):
    layer = first_layer(tiny_random.qwen())
    seen = []
    layer.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    products = LayerProducts(layer)
    products.projected(inputs(layer))
    products.feed_forward(inputs(layer))
    assert seen == [name]


def test_a_forward_pass_in_the_place_of_a_modules_own_is_called():
    layer = first_layer(tiny_random.qwen())
    own = layer.self_attn.v_proj.forward
    layer.self_attn.v_proj.forward = lambda hidden: own(hidden) + 1
    products = LayerProducts(layer)
    assert torch.allclose(products.projected(inputs(layer)), expected(layer, inputs(layer))[0], atol=1e-6)


def test_adapters_count():
    loaded = tiny_random.qwen()
    layer = first_layer(loaded)
    with torch.inference_mode(False):
        adapted = LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        get_peft_model(loaded.model, adapted)
    products = LayerProducts(layer)
    projected, fed = expected(layer, hidden := inputs(layer))
    assert torch.allclose(products.projected(hidden), projected, atol=1e-6)
    assert torch.allclose(products.feed_forward(hidden), fed, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_the_modules_to_the_bit(dtype):
    norm = first_layer(tiny_random.qwen()).input_layernorm.to(dtype)
    hidden = torch.randn(7, len(norm.weight)).to(dtype)
    assert torch.equal(normed(norm, hidden), norm(hidden))
