"""How much a model looks at the picture while it writes: attention weights, read without keeping those of the whole text."""

# L layers, H heads, Q tokens that look, K tokens that are seen.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from opengrit.sampling import Asked
from opengrit.sampling.model_inputs import PreparedPrompt, VisionLanguageModel, widen
from opengrit.sampling.transformers_engine import TransformersSampler


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is read as if the model had written it: token ids before those that are measured (at least one), and those."""

    before: tuple[int, ...]
    measured: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PictureAttention:
    """The attention that the picture gets, layer by layer, for each reply; and how long the prompt is."""

    shares: tuple[tuple[float, ...], ...]  # of each reply L numbers from 0 to 1
    picture_tokens: int
    prompt_tokens: int  # those of the picture included


def attention_to_picture(
    sampler: TransformersSampler, question: Asked, replies: Sequence[Reply]
) -> PictureAttention:
    """The share of the attention that goes to the picture's tokens while the measured tokens of each reply are written.

    A token is written with the attention of the token before it, which predicts it. Its weights on all tokens
    of the picture are added up, and the sums averaged over tokens and heads. The prompt is read once, with the
    model's own attention; weights are asked for the measured tokens alone, so that memory grows with L x H x Q x K for one reply.
    Raises ImageError when the picture cannot be read.
    """
    vlm, prompt = sampler.vlm, sampler.prepare(question)
    image_id = vlm.processor.image_token_id
    places = [place for place, token in enumerate(prompt.ids) if token == image_id]
    with torch.no_grad():
        visual = sampler.encode(vlm.model, [prompt.picture])
        cache = sampler.prefill([prompt], visual).cache
        shares = [_shares(vlm, prompt, cache, reply, places) for reply in replies]
    return PictureAttention(tuple(shares), len(places), len(prompt.ids))


def _shares(
    vlm: VisionLanguageModel, prompt: PreparedPrompt, cache: DynamicCache, reply: Reply, places: Sequence[int]
) -> tuple[float, ...]:
    """Layer by layer; the cache holds the prompt before and after."""
    read, looking = reply.before[:-1], [reply.before[-1], *reply.measured[:-1]]
    if read:
        _forward(vlm, cache, read, first=prompt.next_position)
    with _weights_kept(vlm):
        out = _forward(vlm, cache, looking, first=prompt.next_position + len(read), output_attentions=True)
    cache.crop(-(len(read) + len(looking)))
    return tuple(float(weights_1HQK[..., places].float().sum(-1).mean()) for weights_1HQK in out.attentions)


def _forward(
    vlm: VisionLanguageModel, cache: DynamicCache, ids: Sequence[int], *, first: int, **how: Any
) -> Any:
    device = vlm.model.device
    positions = torch.arange(first, first + len(ids), device=device)[None]
    return vlm.model(
        input_ids=torch.tensor([list(ids)], device=device),
        position_ids=widen(positions, axes=vlm.position_axes),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **how,
    )


@contextmanager
def _weights_kept(vlm: VisionLanguageModel) -> Iterator[None]:
    """Attention that gives its weights, which transformers' eager one does and fused ones do not; for this while only."""
    config = vlm.base.get_decoder().config
    own = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = own
