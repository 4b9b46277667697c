"""The head in tiles gives what the whole logits give, values and gradients, and never holds the logits."""

from __future__ import annotations

import pytest
import tiny_random
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trl.trainer.utils import add_fused_lm_head

from opengrit.training.tiled_head import Tiling, add_tiled_head, score_labels

ROWS, WIDTH, WORDS = 37, 16, 501


def head(*, bias, seed=0, dtype=torch.float32):
    """Hidden states, weight, bias and labels; the logits of some rows lie far apart, as a trained model's do."""
    torch.manual_seed(seed)
    hidden = torch.randn(ROWS, WIDTH) * torch.linspace(0.1, 8.0, ROWS)[:, None]
    weight, offset = torch.randn(WORDS, WIDTH), torch.randn(WORDS)
    labels = torch.randint(0, WORDS, (ROWS,))
    labels[0], labels[1] = 0, WORDS - 1
    parts = [part.to(dtype).requires_grad_() for part in (hidden, weight, offset)]
    return parts[0], parts[1], parts[2] if bias else None, labels


def plain(hidden, weight, bias, labels, temperature):
    """Log-probabilities, entropies and whether the label is likeliest, from logits in double precision."""
    logits = torch.nn.functional.linear(hidden, weight, bias).double() / temperature
    log_probs = logits.log_softmax(-1)
    entropies = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(1, labels[:, None])[:, 0], entropies, logits.argmax(-1) == labels


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tiling", [None, Tiling(8, 64), Tiling(1, 501), Tiling(64, 7), Tiling(37, 500)])
def test_tiles_give_the_values_and_gradients_of_the_whole_logits(tiling, bias, temperature):
    hidden, weight, offset, labels = head(bias=bias)
    scores = score_labels(
        hidden, weight, labels, bias_V=offset, temperature=temperature, entropy=True, top1=True, tiling=tiling
    )
    log_probs, entropies, top1 = plain(hidden, weight, offset, labels, temperature)
    torch.testing.assert_close(scores.log_probs_N.double(), log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropies_N.double(), entropies, atol=1e-5, rtol=1e-5)
    assert torch.equal(scores.is_top1_N, top1)
    assert not scores.entropies_N.requires_grad
    slopes = torch.linspace(-1, 1, ROWS)
    leaves = [part for part in (hidden, weight, offset) if part is not None]
    ours = torch.autograd.grad((scores.log_probs_N * slopes).sum(), leaves)
    theirs = torch.autograd.grad((log_probs * slopes).sum(), leaves)
    for mine, true in zip(ours, theirs, strict=True):
        assert (mine - true).norm() <= 1e-5 * true.norm()


def test_a_likeliest_label_is_known_in_every_tile():
    hidden, weight, _, _ = head(bias=False)
    likeliest = (hidden @ weight.T).argmax(-1)
    tiling = Tiling(8, 64)
    assert score_labels(hidden, weight, likeliest, top1=True, tiling=tiling).is_top1_N.all()
    assert not score_labels(hidden, weight, (likeliest + 1) % WORDS, top1=True, tiling=tiling).is_top1_N.any()


def test_under_autocast_logits_of_rounded_states_and_weights_are_kept_in_full():
    hidden, weight, _, labels = head(bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = score_labels(hidden, weight, labels, entropy=True)
    rounded = hidden.bfloat16().float(), weight.bfloat16().float()
    log_probs, entropies, _ = plain(*rounded, None, labels, 1.0)
    torch.testing.assert_close(ours.log_probs_N.double(), log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.entropies_N.double(), entropies, atol=1e-5, rtol=1e-5)
    by_hidden, by_weight = torch.autograd.grad(ours.log_probs_N.sum(), (hidden, weight))
    true_hidden, true_weight = torch.autograd.grad(log_probs.sum(), (hidden, weight))
    assert by_hidden.dtype == by_weight.dtype == torch.float32
    assert (
        by_hidden - true_hidden
    ).norm() <= 5e-3 * true_hidden.norm()  # gradients pass in bfloat16, as autocast's do
    assert (by_weight - true_weight).norm() <= 5e-3 * true_weight.norm()


class Products(TorchDispatchMode):
    """Counts matrix products by the size of their result, and remembers the largest tensor that was made."""

    def __init__(self):
        super().__init__()
        self.logits = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel())
            if func.overloadpacket is torch.ops.aten.mm and made.shape[0] != WIDTH:
                self.logits += made.numel()
        return made


@pytest.mark.parametrize(("trained", "looks"), [(True, 2), (False, 1)])
def test_the_logits_are_looked_at_once_and_again_only_for_a_head_that_is_trained(trained, looks):
    hidden, weight, _, labels = head(bias=False)
    weight = weight.detach().requires_grad_(trained)
    with Products() as counted:
        score_labels(hidden, weight, labels, entropy=True, tiling=Tiling(8, 64)).log_probs_N.sum().backward()
    assert counted.logits == looks * ROWS * WORDS
    assert counted.largest <= WORDS * WIDTH  # the head's gradient; the logits would have 37 x 501
    assert hidden.grad.any()


@pytest.mark.parametrize("rise", [60.0, 300.0])
def test_logits_far_above_those_of_the_first_tile_are_added_up_as_exactly(rise):
    torch.manual_seed(0)
    hidden = torch.cat([torch.ones(ROWS, 1), torch.randn(ROWS, WIDTH - 1)], 1).requires_grad_()
    weight = torch.cat([torch.zeros(WORDS, 1), torch.randn(WORDS, WIDTH - 1)], 1)
    weight[64:, 0] = rise  # words of later tiles
    weight.requires_grad_()
    labels = torch.randint(0, WORDS, (ROWS,))
    with Products() as counted:
        scores = score_labels(hidden, weight, labels, entropy=True, tiling=Tiling(8, 64))
    assert (
        counted.logits == (1 if rise < 80 else 3) * ROWS * WORDS
    )  # exponentials overflow; the largest is looked for first
    log_probs, entropies, _ = plain(hidden, weight, None, labels, 1.0)
    # Logits of 300 are told apart by 3e-5 in float32.
    torch.testing.assert_close(scores.log_probs_N.double(), log_probs, atol=1e-5 + 1e-7 * rise, rtol=1e-5)
    torch.testing.assert_close(scores.entropies_N.double(), entropies, atol=1e-5 + 1e-7 * rise, rtol=1e-5)
    ours = torch.autograd.grad(scores.log_probs_N.sum(), (hidden, weight))
    theirs = torch.autograd.grad(log_probs.sum(), (hidden, weight))
    for mine, true in zip(ours, theirs, strict=True):
        assert (mine - true).norm() <= 3e-5 * true.norm()


# In a model.

FAMILIES = {"qwen": tiny_random.qwen, "internvl": tiny_random.internvl}


def text_only(model, *, rows=3, tokens=9):
    torch.manual_seed(1)
    ids = torch.randint(3, 90, (rows, tokens))
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1] = -100  # an idle row
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_tiled_head_gives_what_trls_fused_head_gives(family, tied):
    model = FAMILIES[family]().model
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    wanted = ("log_probs", "entropy", "is_top1")
    inputs, labels = text_only(model)
    add_fused_lm_head(model, temperature=0.9, outputs=wanted)
    slopes = torch.linspace(-1, 1, labels[:, 1:].numel()).view_as(labels[:, 1:])
    found = []
    for add in (None, add_tiled_head):
        if add is not None:
            add(model, temperature=0.9, entropy=True, top1=True)
        model.zero_grad()
        made = model(**inputs, labels=labels, fused_lm_head=True)
        (made.log_probs * slopes).sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((made, gradients))
    (theirs, true), (ours, mine) = found
    for name in ("loss", "log_probs", "entropy"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.is_top1 & ours.label_mask, theirs.is_top1 & theirs.label_mask)
    assert torch.equal(ours.label_mask, theirs.label_mask)
    assert mine.keys() == true.keys()
    for name, gradient in true.items():
        assert (mine[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, name
    unasked = model(**inputs, labels=labels, fused_lm_head=True, with_entropy=False)
    assert unasked.entropy is None
    assert torch.equal(unasked.log_probs, ours.log_probs)


def test_a_batch_without_labels_gives_a_gradient_of_zero():
    model = tiny_random.qwen().model
    add_fused_lm_head(model)
    add_tiled_head(model, entropy=True)
    inputs, labels = text_only(model)
    made = model(**inputs, labels=torch.full_like(labels, -100), fused_lm_head=True)
    made.loss.backward()
    assert made.loss == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_pass_that_asks_for_logits_gets_the_models_own():
    model = tiny_random.qwen().model
    inputs, _ = text_only(model)
    before = model(**inputs).logits
    add_fused_lm_head(model)
    add_tiled_head(model)
    assert torch.equal(model(**inputs).logits, before)


def test_capped_logits_stay_with_trls_head():
    model = tiny_random.qwen().model
    model.config.get_text_config().final_logit_softcapping = 1.0
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    inputs, labels = text_only(model)
    theirs = model(**inputs, labels=labels, fused_lm_head=True).log_probs
    add_tiled_head(model, entropy=True)
    assert torch.equal(
        model(**inputs, labels=labels, fused_lm_head=True, with_entropy=False).log_probs, theirs
    )
